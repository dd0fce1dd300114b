"""The monitor page in real Chromium, on a real Redis and the real API and monitor processes."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from playwright.async_api import expect

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import ConnectorStatus, ProgramReport, ProgramState, WorkerStatus
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.jobs.outcome.losses import How, Loss
from emp_orch.store.fleet.overrides import put_override
from emp_orch.store.fleet.status import BreakerStatus, RedisStatus, RolloutStatus, read_status, write_status
from emp_orch.store.queue.submit import Queue
from support.http.browser import SOON_MS, Watched, populate
from support.http.outputs import completed
from support.http.stack import FLEET, Producer, Stack, fleet_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_cards_workers_connectors_and_live_changes(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    await populate(producer)
    page = await watched.open(http_stack)
    card = page.locator("[data-machine=m1]")
    await expect(card).to_contain_text("ready")
    await expect(page.locator("#verdict")).to_contain_text("In sync")
    first, second = card.locator("[data-slot='0']"), card.locator("[data-slot='1']")
    await expect(first).to_contain_text("idle")
    await expect(second).to_contain_text("busy")
    await expect(second).to_contain_text("job-7")
    await expect(second.locator(".connectors")).to_contain_text("comfyui active")
    await expect(card.locator("[data-program=comfyui-gpu1]")).to_contain_text("running")
    # A change arrives without anybody touching the page.
    await producer.worker("m1", 1)
    await producer.events.append("worker_status", machine_id="m1", worker_id="m1-worker-1", status="idle")
    await expect(second).to_contain_text("idle", timeout=SOON_MS)
    await expect(page.locator("#events")).to_contain_text("worker_status")
    assert watched.complaints == []
    assert {url.split("/")[2] for url in watched.urls} == {http_stack.monitor.split("/")[2]}


async def test_an_unworkable_job_and_what_a_job_made(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    queue = Queue(producer.redis, producer.keys)
    await queue.submit(parse_submission({"service": "video"}))
    (lane,) = await queue.lanes()
    await queue.judge(lane.lane, "no worker of the fleet could run it")
    page = await watched.open(http_stack)
    await expect(page.locator("#jobs")).to_contain_text("unworkable", timeout=SOON_MS)
    await expect(page.locator("#events")).to_contain_text("no worker of the fleet could run it")
    await completed(http_stack, producer, ("a b.txt", "text/plain", b"a fox"), ("c.txt", "text/plain", b"another"))
    await page.get_by_role("button", name="outputs").click(timeout=SOON_MS)
    await expect(page.locator(".outputs li a")).to_have_text(["a b.txt", "c.txt"])
    async with page.expect_popup() as opened:
        await page.get_by_role("link", name="a b.txt").click()
    await expect((await opened.value).locator("body")).to_have_text("a fox")
    assert watched.complaints == [] and await watched.not_reloaded()


async def test_drift_appears_and_heals(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    page = await watched.open(http_stack)
    await expect(page.locator("#drift")).to_contain_text("Nothing differs")
    drift = await producer.drift("m1", "comfyui-gpu1", held="breaker is open", age_ms=65_000)
    fatal = ProgramReport(state=ProgramState.FATAL, detail="exited too quickly")
    await producer.machine(fleet_of("m1"), "m1", comfyui_gpu1=fatal)
    await producer.status(drift)
    await producer.events.append("drift_changed", count=1)
    row = page.locator("[data-key='program-fatal/m1/comfyui-gpu1']")
    await expect(row).to_be_visible(timeout=SOON_MS)
    for text in ("RUNNING", "FATAL", "1 min", "start program", "breaker is open", "2 attempts", "emp.yaml:20:3"):
        await expect(row).to_contain_text(text)
    await expect(page.locator("#verdict")).to_contain_text("1 difference")
    await expect(page.locator("[data-program=comfyui-gpu1]")).to_contain_text("fatal")
    assert await page.title() == "(1) basic · emp"
    await producer.machine(fleet_of("m1"), "m1")
    await producer.status()
    await producer.events.append("drift_changed", count=0)
    await expect(row).to_have_count(0, timeout=SOON_MS)
    await expect(page.locator("#verdict")).to_contain_text("In sync")
    await expect(page.locator(".healed")).to_contain_text("comfyui-gpu1")
    assert watched.complaints == []


async def test_what_healed_while_the_page_heard_nothing_is_told_by_the_journal_alone(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    """The page once told how long it had been away as the time that healing took."""
    await populate(producer)
    drift = await producer.drift("m1", "comfyui-gpu1", age_ms=300_000)
    await producer.status(drift)
    page = await watched.open(http_stack)
    await expect(page.locator("[data-key='program-fatal/m1/comfyui-gpu1']")).to_be_visible(timeout=SOON_MS)
    http_stack.stop("api", signal.SIGKILL)
    await expect(page.locator("#connection")).to_have_text("reconnecting", timeout=SOON_MS)
    await producer.status()
    http_stack.start("api")
    await expect(page.locator("#connection")).to_have_text("live", timeout=SOON_MS)
    await expect(page.locator("#drift")).to_contain_text("Nothing differs", timeout=SOON_MS)
    await expect(page.locator(".healed li", has_text="comfyui-gpu1")).to_have_count(0)
    assert await watched.not_reloaded()


@pytest.mark.parametrize("name", ["api", "monitor"])
async def test_it_recovers_from_a_restart_without_reload(
    watched: Watched, http_stack: Stack, producer: Producer, name: str
) -> None:
    await populate(producer)
    page = await watched.open(http_stack)
    http_stack.stop(name, signal.SIGKILL)
    await expect(page.locator("#connection")).to_have_text("reconnecting", timeout=SOON_MS)
    await expect(page.locator("#connection")).to_contain_text("stale since", timeout=7_000)
    await expect(page.locator("[data-machine=m1]")).to_be_visible()
    await producer.worker("m1", 0, status=WorkerStatus.PAUSED)
    missed = await producer.events.append("while_away", machine_id="m1")
    http_stack.start(name)
    await expect(page.locator("#connection")).to_have_text("live", timeout=SOON_MS)
    await expect(page.locator("[data-slot='0']")).to_contain_text("paused")
    await expect(page.locator("#events")).to_contain_text("while_away")
    assert missed
    assert await watched.not_reloaded()


async def test_a_module_that_did_not_come_is_fetched_again(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    await populate(producer)
    # As when the monitor is restarted just while it is asked.
    await watched.page.route("**/js/state/store.js", lambda route: route.abort("connectionreset"), times=2)
    await watched.page.goto(http_stack.monitor)
    await expect(watched.page.locator("#connection")).to_have_text("live", timeout=SOON_MS)


async def test_a_mute_api_is_called_stale_within_five_seconds(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    await populate(producer)
    page = await watched.open(http_stack)
    api = http_stack.daemons["api"].popen
    began = time.monotonic()
    api.send_signal(signal.SIGSTOP)
    try:
        await expect(page.locator("#connection")).to_contain_text("stale since", timeout=SOON_MS)
        assert time.monotonic() - began < 6
    finally:
        api.send_signal(signal.SIGCONT)
    await expect(page.locator("#connection")).to_have_text("live", timeout=SOON_MS)
    assert await watched.not_reloaded()


async def test_redis_away_is_said(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    page = await watched.open(http_stack)
    http_stack.stop_redis()
    await expect(page.locator("#connection")).to_contain_text("Redis is away, last heard ", timeout=SOON_MS)
    http_stack.start_redis()
    await expect(page.locator("#connection")).to_have_text("live", timeout=SOON_MS)


async def test_markup_from_machines_stays_text(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    evil = "<img src=x onerror=window.hacked=1>"
    await populate(producer)
    await producer.worker("m1", 0, detail=evil, connector=ConnectorStatus.ERROR, job=evil)
    fatal = ProgramReport(state=ProgramState.FATAL, detail=evil)
    await producer.machine(fleet_of("m1"), "m1", **cast(Any, {evil: fatal}))
    report = str(await producer.redis.hget("machines", "m1"))
    await producer.redis.hset("machines", evil, report.replace('"m1"', f'"{evil}"', 1))
    await producer.redis.zadd("machines:seen", {evil: 1})
    await producer.status(await producer.drift(evil, evil, cause=evil, observed=evil, desired=evil, origin=evil))
    await producer.events.append(evil, machine_id=evil, text=evil)
    page = await watched.open(http_stack)
    await expect(page.locator("#machines h3", has_text=evil)).to_be_visible()
    await expect(page.locator("#drift")).to_contain_text(evil)
    await expect(page.locator("#events")).to_contain_text(evil)
    assert await page.locator("img:not(.brand img)").count() == 0
    assert await page.evaluate("window.hacked") is None
    assert watched.complaints == []


async def test_a_silent_machine_and_an_absent_one(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    fleet = fleet_of("m1", "m2")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    await producer.silence("m1", 120_000)
    page = await watched.open(http_stack)
    await expect(page.locator("[data-machine=m1]")).to_contain_text("offline")
    await expect(page.locator("[data-machine=m1]")).to_contain_text("last heard 2 min")
    await expect(page.locator("[data-machine=m2]")).to_contain_text("not reporting")
    await expect(page.locator("#verdict")).to_contain_text("Unknown")


async def test_it_fits_a_phone(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    await producer.status(await producer.drift("m1", "comfyui-gpu1", cause="a long word: " + "x" * 200))
    await watched.page.set_viewport_size({"width": 360, "height": 740})
    page = await watched.open(http_stack)
    await expect(page.locator("[data-machine=m1]")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_the_token_is_asked_for(watched: Watched, new_http_stack: object, tmp_path: Path) -> None:
    stack: Stack = new_http_stack(token="page-token")  # type: ignore[operator]
    stack.start_redis()
    for name in ("api", "monitor"):
        stack.start(name)
    await stack.answers(f"{stack.api}/health")
    await stack.answers(f"{stack.monitor}/health")
    page = watched.page
    await page.goto(stack.monitor)
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Open").click()
    await expect(page.get_by_role("alert")).to_contain_text("not accepted", timeout=SOON_MS)
    await page.get_by_label("Token").fill("page-token")
    await page.get_by_role("button", name="Open").click()
    await expect(page.locator("#connection")).to_have_text("live", timeout=SOON_MS)


async def test_the_policy_is_strict(http_stack: Stack, watched: Watched) -> None:
    response = await watched.page.goto(http_stack.monitor)
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    await expect(watched.page.locator("#connection")).to_have_text("live", timeout=SOON_MS)
    blocked = await watched.page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", () => resolve(true));
            const script = document.createElement("script");
            script.textContent = "window.inline = 1";
            document.body.append(script);
            setTimeout(() => resolve(window.inline !== 1), 500);
        })"""
    )
    assert blocked is True


async def test_what_holds_emp_up_stands_in_the_top_line(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    await populate(producer)
    page = await watched.open(http_stack)
    await expect(page.locator("#breaker")).to_have_count(0)
    drain = Override(kind=OverrideKind.DRAIN, machine_id=MachineId("m1"), reason="<b>GPU</b>", by="ann")
    pause = Override(kind=OverrideKind.PAUSE, reason="disk swap", by="ops")
    for override in (drain, pause):
        await put_override(producer.redis, producer.keys, FLEET, override, producer.seal)
    status = await read_status(producer.redis, producer.keys, FLEET)
    assert status is not None
    held = msgspec.structs.replace(
        status,
        breaker=BreakerStatus(reason="5 of 8 machines failed", since_ms=status.at_ms, trial=("m3",)),
        rollout=RolloutStatus(
            generation=2, pending=7, done=3, stalled=False, since_progress_ms=status.at_ms, broken=("m4",), halted=True
        ),
        redis=RedisStatus(
            lost=Loss(jobs=142, how=How.EMPTY, at_ms=status.at_ms, seen_ms=status.at_ms - 900),
            policy="allkeys-lru",
            evicts=True,
            evicted=33,
            wanted=1,
        ),
    )
    await write_status(producer.redis, producer.keys, await producer.mandate(), held)
    await producer.events.append("drift_changed", count=0)
    await expect(page.locator("#breaker")).to_have_text(
        "breaker open: 5 of 8 machines failed; trying m3", timeout=SOON_MS
    )
    await expect(page.locator("[data-override='pause:fleet']")).to_have_text("paused: disk swap (by ops)")
    await expect(page.locator("[data-override='drain:m1']")).to_have_text("drained m1: <b>GPU</b> (by ann)")
    await expect(page.locator("#rollout")).to_have_text("rollout 3/10, halted: m4 failed with it")
    await expect(page.locator("#lost")).to_have_text("142 jobs are gone: Redis came back empty")
    await expect(page.locator("#eviction")).to_contain_text("it evicted 33 keys since it started; set maxmemory-policy")
    await expect(page.locator("#alone")).to_contain_text("0 replicas follow Redis, 1 wanted (redis.replicas)")
    await producer.redis.config_set("maxmemory", 1)
    try:
        await expect(page.locator("#refuses")).to_contain_text("its memory is full (maxmemory)", timeout=SOON_MS)
    finally:
        await producer.redis.config_set("maxmemory", 0)
    await expect(page.locator("#refuses")).to_have_count(0, timeout=SOON_MS)
    assert watched.complaints == []
