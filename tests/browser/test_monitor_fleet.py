"""The page over a whole fleet as a user has it: what breaks appears and heals; a job runs and its picture shows."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from support.http.browser import SOON_MS, Watched, problems
from support.http.stack import eventually
from support.stack.stack import MACHINE, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEALED_MS = 30_000


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("fleet"))
    try:
        stack.up()
        yield stack
    finally:
        stack.run("down")


# Every key of a difference that was drawn, however briefly.
RECORD = """() => {
    window.drawn = new Set();
    const note = () => document.querySelectorAll("[data-key]").forEach((e) => window.drawn.add(e.dataset.key));
    new MutationObserver(note).observe(document.body, {childList: true, subtree: true});
}"""


async def test_a_killed_worker_appears_heals_and_is_told(watched: Watched, fleet: Stack) -> None:
    page = await watched.open(fleet.monitor)
    await expect(page.locator("#verdict")).to_contain_text("In sync", timeout=SOON_MS)
    await page.evaluate(RECORD)
    program = page.locator("[data-program=redis-worker-gpu0] .badge")
    pid = int(re.findall(r"pid (\d+)", await program.get_attribute("title") or "")[0])
    os.kill(pid, signal.SIGKILL)
    seen = "[...window.drawn].some((key) => /worker-(gpu)?0$/.test(key))"
    await eventually(lambda: page.evaluate(seen), "the difference was drawn")
    await expect(page.locator("#verdict")).to_contain_text("In sync", timeout=HEALED_MS)
    await expect(page.locator("#drift")).to_contain_text("Nothing differs")
    healed = page.locator(".healed li", has_text=re.compile("worker-(gpu)?0"))
    await expect(healed.first).to_contain_text("healed after")
    await expect(program).not_to_have_attribute("title", re.compile(f"pid {pid}\\b"))
    await page.get_by_role("link", name="timeline").click()
    await expect(page.locator(".healed li", has_text=re.compile("worker-(gpu)?0")).first).to_be_visible()
    await expect(page.locator("[data-chart=heals] canvas")).to_be_visible()
    await page.get_by_label("Type").select_option("program_state")
    await expect(page.locator("#events")).to_contain_text("redis-worker-gpu0")
    assert watched.complaints == [] and await watched.not_reloaded()


async def test_the_machines_page_tells_its_start_and_its_log(watched: Watched, fleet: Stack) -> None:
    page = await watched.open(fleet.monitor, f"#/machines/{MACHINE}")
    await expect(page.locator("#startup")).to_contain_text("ready after")
    await expect(page.locator("#startup .startup-step")).to_have_count(6)
    await expect(page.locator("#startup")).to_contain_text("comfyui-gpu1 up")
    await expect(page.locator("#log pre")).to_contain_text("spawned: 'redis-worker-gpu0'")
    await expect(page.locator("#diff-title")).to_contain_text("all the same", timeout=SOON_MS)
    before = await page.locator("[data-line='comfyui-gpu1']").inner_text()
    await page.get_by_role("button", name="restart comfyui-gpu1").click()
    await page.get_by_role("dialog").get_by_role("button", name="Restart").click()
    await expect(page.locator("#toast")).to_contain_text("done", timeout=HEALED_MS)
    await expect(page.locator("[data-line='comfyui-gpu1']")).not_to_contain_text(
        re.findall(r"pid \d+", before)[0], timeout=HEALED_MS
    )
    assert await problems(page) == []
    assert watched.complaints == []


async def test_a_submitted_job_ends_with_its_picture(watched: Watched, fleet: Stack) -> None:
    page = await watched.open(fleet.monitor, "#/jobs")
    await page.get_by_role("button", name="Submit", exact=True).click()
    job = page.get_by_role("dialog").locator("#job")
    await expect(job).to_have_attribute("data-status", "completed", timeout=HEALED_MS)
    picture = job.locator("[data-artifact] img")
    await expect(picture).to_have_js_property("naturalWidth", 256, timeout=SOON_MS)
    await page.keyboard.press("Escape")
    await expect(page.locator("#jobs [data-job]").first).to_contain_text("completed")
    assert watched.complaints == []


async def test_the_fleet_is_paused_with_a_reason_and_resumed(watched: Watched, fleet: Stack) -> None:
    page = await watched.open(fleet.monitor)
    await page.locator("[data-command=pause-fleet]").click()
    await page.get_by_label("Reason").fill("a look at the disks")
    await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    chip = page.locator("[data-override='pause:fleet']")
    await expect(chip).to_have_text("paused: a look at the disks (by the page)", timeout=SOON_MS)
    await page.locator("[data-command=resume-fleet]").click()
    await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(chip).to_have_count(0, timeout=SOON_MS)
    assert watched.complaints == []


# Everything over the page's own origin, as the page's policy allows it; the traffic is seen from outside.
TRAFFIC = """async () => {
    const state = await (await fetch("/api/monitor/state")).json();
    const frames = [];
    const socket = new WebSocket(`ws://${location.host}/ws/monitor/the-test`);
    await new Promise((done, failed) => {
        socket.onerror = failed;
        socket.onopen = () => {
            socket.send(JSON.stringify({type: "monitor_connect", live: true}));
            socket.send(JSON.stringify({type: "heartbeat"}));
        };
        socket.onmessage = ({data}) => {
            frames.push(JSON.parse(data).type);
            if (["full_state_snapshot", "heartbeat", "heartbeat_ack"].every((t) => frames.includes(t))) done();
        };
    });
    socket.close();
    return {state, frames};
}"""


async def test_state_events_and_websocket_travel_over_the_pages_origin(watched: Watched, fleet: Stack) -> None:
    sockets: list[str] = []
    watched.page.on("websocket", lambda socket: sockets.append(socket.url))
    page = await watched.open(fleet.monitor)
    seen = await page.evaluate(TRAFFIC)
    state = seen["state"]
    assert state["success"] is True
    assert [m["machine_id"] for m in state["data"]["machines"]] == [MACHINE]
    workers = {w["worker_id"]: w for w in state["data"]["workers"]}
    assert set(workers) == {f"{MACHINE}-worker-0", f"{MACHINE}-worker-1"}
    assert all(w["machine_id"] == MACHINE and w["connector_statuses"] for w in workers.values())
    assert {"connected", "full_state_snapshot"} <= set(seen["frames"])
    assert sockets == [f"{fleet.monitor.replace('http', 'ws')}/ws/monitor/the-test"]
    # The page itself lives on the stream, and nothing comes from elsewhere.
    assert [u for u in watched.urls if u.endswith("/api/events/monitor?live=1")] != []
    assert [u for u in watched.urls if not u.startswith((fleet.monitor, "blob:", "data:"))] == []
    assert watched.complaints == []
