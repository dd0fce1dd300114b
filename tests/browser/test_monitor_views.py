"""The page's views: filters in the address, the keyboard, commands, jobs, and names that are markup in each of them."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest
from playwright.async_api import Browser, Page, expect

from emp_orch.fleet.drift.table import Kind
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import ConnectorStatus, ProgramEnd, ProgramReport, ProgramState, WorkerStatus
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.queue.submit import Queue
from support.http.browser import SOON_MS, Watched, populate, problems
from support.http.outputs import completed
from support.http.stack import FLEET, INPUT_MAX_BYTES, Producer, Stack, eventually, fleet_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEWS = ("overview", "drift", "machines", "machines/m1", "jobs", "timeline")
EVIL = "<img src=x onerror=window.hacked=1>"
# A picture of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
)


# All keys in one task.
TYPED = """(keys) => {
    for (const key of keys)
        (document.activeElement ?? document.body).dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
}"""


async def troubled(producer: Producer) -> None:
    """Two machines, one with a fatal program and a paused worker, and a job that nobody can run."""
    fleet = fleet_of("m1", "m2")
    await producer.apply(fleet)
    fatal = ProgramReport(state=ProgramState.FATAL, detail="out of memory", restarts=3)
    await producer.machine(fleet, "m1", comfyui_gpu1=fatal)
    await producer.machine(fleet, "m2")
    await producer.worker("m1", 0)
    await producer.worker("m1", 1, status=WorkerStatus.PAUSED, connector=ConnectorStatus.ERROR, detail="refused")
    await producer.worker("m2", 0, status=WorkerStatus.BUSY, connector=ConnectorStatus.ACTIVE, job="job-7")
    await producer.status(
        await producer.drift("m1", "comfyui-gpu1", held="breaker is open"),
        await producer.drift("m2", "m2", kind=Kind.MACHINE_STALE, action="", observed="silent"),
    )
    queue = Queue(producer.redis, producer.keys)
    await queue.submit(parse_submission({"service": "video", "id": "job-video"}))
    for phase in ("starting", "configuring", "ready"):
        await producer.events.append("machine_startup", machine_id="m1", phase=phase)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_serious_problem_in_any_view(
    browser: Browser, http_stack: Stack, producer: Producer, scheme: str
) -> None:
    await troubled(producer)
    watched = await Watched.new(browser, color_scheme=scheme, reduced_motion="reduce")
    try:
        page = await watched.open(http_stack)
        for view in VIEWS:
            await page.evaluate("(view) => (location.hash = `#/${view}`)", view)
            await expect(page.locator("main h1").first).to_be_visible()
            await expect(page.locator("main h1, main h2").first).not_to_be_empty()
            assert await problems(page) == [], (view, scheme)
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
        assert await problems(page) == [], ("help", scheme)
    finally:
        await watched.close()


@pytest.mark.parametrize("view", VIEWS)
async def test_every_view_fits_a_phone(browser: Browser, http_stack: Stack, producer: Producer, view: str) -> None:
    await troubled(producer)
    await producer.status(await producer.drift("m1", "comfyui-gpu1", cause="a long word: " + "x" * 200))
    watched = await Watched.new(browser, viewport={"width": 360, "height": 740})
    try:
        page = await watched.open(http_stack, f"#/{view}")
        await expect(page.locator("main h1, main h2").first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert [c for c in watched.complaints if "404" not in c] == []  # m1 has no log here
    finally:
        await watched.close()


async def test_filters_stand_in_the_address(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await troubled(producer)
    page = await watched.open(http_stack, "#/machines")
    await expect(page.locator("article")).to_have_count(2)
    await page.get_by_label("Status").select_option("differs")
    await page.get_by_label("Search machines").fill("fatal m1")
    await expect(page.locator("#shown")).to_have_text("0 of 2 machines")
    await page.get_by_label("Search machines").fill("M1 comfyui")
    await expect(page.locator("article")).to_have_count(1)
    assert page.url.endswith("#/machines?status=differs&q=M1+comfyui")
    # Whoever gets the address sees the same.
    other = await Watched.new(page.context.browser, viewport={"width": 1200, "height": 800})  # type: ignore[arg-type]
    try:
        await other.open(page.url.partition("/#")[0], "#" + page.url.partition("#")[2])
        await expect(other.page.locator("article")).to_have_count(1)
        await expect(other.page.get_by_label("Search machines")).to_have_value("M1 comfyui")
    finally:
        await other.close()
    await page.goto(f"{http_stack.monitor}/#/drift?machine=m2")
    await expect(page.locator("#drift tr[data-key]")).to_have_count(1)
    await page.get_by_role("link", name="show all").click()
    await expect(page.locator("#drift tr[data-key]")).to_have_count(2)
    await page.goto(f"{http_stack.monitor}/#/timeline?type=machine_startup&q=ready")
    await expect(page.locator("[data-event]")).to_have_count(1)
    assert watched.complaints == []


async def test_the_keyboard_reaches_everything(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await troubled(producer)
    page = await watched.open(http_stack)
    await page.keyboard.press("g")
    await page.keyboard.press("m")
    await expect(page.locator("h1")).to_have_text("Machines")
    await page.keyboard.press("/")
    await page.keyboard.type("jg?")  # in a field these are letters
    await expect(page.get_by_label("Search machines")).to_have_value("jg?")
    await page.keyboard.press("Escape")
    await expect(page.locator("article")).to_have_count(2)
    for key in "jjk":
        await page.keyboard.press(key)
    await expect(page.locator("article[data-machine=m1]")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".machine-head h1")).to_have_text("m1")
    await page.keyboard.press("Escape")
    await expect(page.locator("article")).to_have_count(2)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("next and previous row")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("g")
    await page.keyboard.press("d")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_contain_text("decided and tried")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    # Back goes back, and keys that come faster than the browser tells of the new address mean the new view.
    await page.go_back()
    await expect(page.locator("article")).to_have_count(2)
    await page.evaluate(TYPED, ["g", "d", "j", "Enter"])
    await expect(page.get_by_role("dialog")).to_contain_text("decided and tried")
    before = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    # A key right behind the one that closes a dialog counts.
    await page.evaluate(TYPED, ["Escape", "t"])
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    await page.reload()
    await expect(page.locator("#connection")).to_have_text("live", timeout=SOON_MS)
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != before


async def test_desired_and_observed_stand_side_by_side(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await troubled(producer)
    stray = ProgramReport(state=ProgramState.RUNNING, pid=77)
    end = ProgramEnd(at_ms=1, pid=7, exit_status=1, lines=("Traceback:", "ImportError: <b>torch"))
    fatal = ProgramReport(state=ProgramState.FATAL, last_end=end, restarts=3)
    await producer.machine(fleet_of("m1", "m2"), "m1", comfyui_gpu1=fatal, stray=stray)
    page = await watched.open(http_stack, "#/machines/m1")
    line = page.locator("[data-line='comfyui-gpu1']")
    await expect(line).to_have_attribute("data-mark", "differs")
    for text in ("RUNNING", "fatal", "3"):
        await expect(line).to_contain_text(text)
    await expect(line.locator("pre")).to_have_text("Traceback:\nImportError: <b>torch")
    await expect(page.locator("[data-line=stray]")).to_have_attribute("data-mark", "surplus")
    await expect(page.locator("[data-line=simulation]")).to_have_attribute("data-mark", "same")
    await expect(page.locator("#diff-title")).to_contain_text("2 of 12 lines differ")
    marks = await page.locator("#diff [data-mark]").evaluate_all("(lines) => lines.map((l) => l.dataset.mark)")
    assert sorted(marks[:2]) == ["differs", "surplus"] and set(marks[2:]) == {"same"}
    await expect(page.locator("#drift")).to_contain_text("breaker is open")
    await expect(page.locator("#log")).to_contain_text("there is no log of machine-m1")
    http_stack.layout.log("machine-m1").write_text("one\n")
    await page.get_by_role("button", name="look again").click()
    await expect(page.locator("pre.log")).to_have_text("one", timeout=SOON_MS)
    with http_stack.layout.log("machine-m1").open("a") as f:
        f.write("two <b>\n")
    await expect(page.locator("pre.log")).to_have_text("one\ntwo <b>", timeout=SOON_MS)
    http_stack.layout.log("machine-m1").unlink()


async def test_commands_ask_back_and_keep_the_reason(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    page = await watched.open(http_stack, "#/machines/m1")
    await page.locator("[data-command=drain]").click()
    await page.get_by_role("button", name="Not now").click()
    assert await read_overrides(producer.redis, producer.keys, FLEET) == ()
    await page.locator("[data-command=drain]").click()
    await page.get_by_label("Reason").fill(f"new disk {EVIL}")
    await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    await expect(page.locator("#toast")).to_contain_text("done")
    await expect(page.locator(".machine-page .chip")).to_contain_text(f"drained : new disk {EVIL}", timeout=SOON_MS)
    (override,) = await read_overrides(producer.redis, producer.keys, FLEET)
    assert (override.scope, override.by) == (MachineId("m1"), "the page")
    await page.locator("[data-command=resume]").click()
    await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(page.locator(".machine-page .chip")).to_have_count(0, timeout=SOON_MS)
    # What is refused is said in the dialog.
    await page.route("**/api/reconcile/pause", lambda route: route.continue_(post_data='{"machine_id": "nobody"}'))
    await page.locator("[data-command=pause]").click()
    await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("alert")).to_contain_text("nobody")
    assert [c for c in watched.complaints if "404" not in c] == []


async def test_a_job_is_submitted_and_what_it_made_is_shown(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    await populate(producer)
    page = await watched.open(http_stack, "#/jobs")
    await page.get_by_label("Payload, JSON").fill("{")
    await page.get_by_role("button", name="Submit", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("payload: not JSON")
    await page.get_by_role("button", name="simulation", exact=True).click()
    await page.get_by_role("button", name="Submit", exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.locator("#job")).to_have_attribute("data-status", "pending")
    await expect(dialog.locator("pre")).to_contain_text("a fox in the snow")
    await dialog.get_by_role("button", name="Cancel", exact=True).click()
    await page.get_by_role("button", name="Cancel job").click()
    await expect(page.locator("#jobs [data-job]")).to_contain_text("cancelled", timeout=SOON_MS)
    job = await completed(
        http_stack, producer, ("a.png", "image/png", PNG), ("evil.html", "text/html", b"<script>1</script>")
    )
    await page.locator(f"#jobs [data-job='{job}'] button").click(timeout=SOON_MS)
    picture = dialog.locator("[data-artifact='a.png'] img")
    await expect(picture).to_be_visible()
    await expect(picture).to_have_js_property("naturalWidth", 1)
    await expect(dialog.locator("[data-artifact='evil.html'] img")).to_have_count(0)
    await page.keyboard.press("Escape")
    await page.get_by_label("Status").select_option("cancelled")
    await expect(page.locator("#jobs [data-job]")).to_have_count(1)
    await page.locator("#jobs [data-job] button").click()
    await dialog.get_by_role("button", name="Run again").click()
    await expect(dialog.locator("#job")).to_have_attribute("data-status", "pending", timeout=SOON_MS)
    assert watched.complaints == [] and await watched.not_reloaded()


DROP = """async ([selector, files]) => {
  const dropped = new DataTransfer();
  for (const [name, text] of files) dropped.items.add(new File([text], name));
  const target = document.querySelector(selector);
  for (const type of ["dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(type, { dataTransfer: dropped, bubbles: true, cancelable: true }));
  }
}"""


async def test_dropped_files_become_inputs_and_a_dropped_workflow_the_payload(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    await populate(producer)
    page = await watched.open(http_stack, "#/jobs")
    workflow = '{"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}}}'
    await page.evaluate(DROP, ["#submit", [["wf.json", workflow], ["x.png", "a picture"]]])
    await expect(page.get_by_label("Payload, JSON")).to_have_value(workflow)
    await expect(page.locator(".inputs li")).to_contain_text("uploaded", timeout=SOON_MS)
    await page.get_by_label("Drop files here").set_input_files({"name": "y", "mimeType": "", "buffer": b"another"})
    await expect(page.locator(".inputs li")).to_have_count(2)
    await page.get_by_role("button", name="Remove y").click()
    assert await problems(page) == []
    await page.locator("#submit input[name=service]").fill("comfyui")
    await page.get_by_role("button", name="Submit", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("no node's input says x.png")
    await page.get_by_label("Name in the workflow").fill("photo.png")
    await page.get_by_role("button", name="Submit", exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.locator("#job")).to_have_attribute("data-status", "pending")
    await expect(dialog.locator("[data-input='photo.png']")).to_contain_text("sha256:")
    await page.keyboard.press("Escape")
    await page.get_by_label("Drop files here").set_input_files(
        {"name": "big.bin", "mimeType": "", "buffer": bytes(INPUT_MAX_BYTES + 1)}
    )
    await expect(page.get_by_role("alert")).to_contain_text("big.bin is larger than", timeout=SOON_MS)
    assert [c for c in watched.complaints if "400" not in c and "413" not in c] == []


async def test_lanes_tell_why_nobody_takes_their_jobs(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await troubled(producer)
    page = await watched.open(http_stack, "#/jobs")
    lane = page.locator("[data-lane]")
    await expect(lane).to_contain_text("1 waiting", timeout=SOON_MS)
    await expect(lane).to_contain_text(re.compile("No worker", re.IGNORECASE))
    await lane.get_by_role("button").click()
    await expect(page.locator("#why")).to_contain_text("m1-worker-0")
    await expect(page.locator("#why")).to_contain_text("'video'")


async def test_markup_is_text_in_every_view(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    await producer.worker("m1", 0, detail=EVIL, connector=ConnectorStatus.ERROR, job=EVIL)
    end = ProgramEnd(at_ms=1, exit_status=3, lines=(EVIL, EVIL))
    fatal = ProgramReport(state=ProgramState.FATAL, detail=EVIL, port_taken_by=EVIL, last_end=end)
    await producer.machine(fleet_of("m1"), "m1", **cast(Any, {EVIL: fatal}))
    report = json.loads((await producer.redis.hget("machines", "m1")) or "{}")
    report.update(machine_id=EVIL, host=EVIL, agent_version=EVIL, error=EVIL)
    await producer.redis.hset("machines", EVIL, json.dumps(report))
    await producer.redis.zadd("machines:seen", {EVIL: 1})
    await producer.status(await producer.drift(EVIL, EVIL, cause=EVIL, observed=EVIL, desired=EVIL, origin=EVIL))
    for kind in (EVIL, "job_completed", "machine_startup", "startup_step", "service_started"):
        await producer.events.append(
            kind, machine_id=EVIL, text=EVIL, job_id=EVIL, step=EVIL, service=EVIL, phase="starting"
        )
    job = await completed(http_stack, producer, ("a.png", "image/png", PNG), ("b.svg", "image/svg+xml", b"<svg/>"))
    page = await watched.open(http_stack)
    for view in (*VIEWS, "machines/" + "".join(f"%{b:02X}" for b in EVIL.encode())):
        await page.evaluate("(view) => (location.hash = `#/${view}`)", view)
        if view != "jobs":
            await expect(page.locator("main")).to_contain_text(EVIL)
        await _nothing_ran(page, pictures=0)
    await page.goto(f"{http_stack.monitor}/#/jobs?q={EVIL}&status={EVIL}")
    await expect(page.get_by_label("Search jobs")).to_have_value(EVIL)
    await page.goto(f"{http_stack.monitor}/#/jobs")
    await page.locator(f"#jobs [data-job='{job}'] button").click(timeout=SOON_MS)
    await expect(page.locator("[data-artifact]")).to_have_count(2)
    await _nothing_ran(page, pictures=1)
    assert [c for c in watched.complaints if "404" not in c] == []


async def _nothing_ran(page: Page, *, pictures: int) -> None:
    assert await page.locator("img:not(.brand img)").count() == pictures
    assert await page.evaluate("window.hacked") is None


async def test_a_hidden_tab_draws_nothing_and_is_whole_on_return(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    await populate(producer)
    page = await watched.open(http_stack)
    slot = page.locator("[data-slot='0']")
    await expect(slot).to_contain_text("idle")
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await page.evaluate(hide, True)
    await page.evaluate("""() => {
        window.drawn = 0;
        new MutationObserver((m) => (window.drawn += m.length))
          .observe(document.body, {childList: true, subtree: true, characterData: true, attributes: true});
    }""")
    await producer.worker("m1", 0, status=WorkerStatus.PAUSED)
    await producer.events.append("worker_status", machine_id="m1", worker_id="m1-worker-0", status="paused")
    told = "window.emp.store.workers.get('m1-worker-0').status === 'paused'"
    await eventually(lambda: page.evaluate(told), "the change is known")
    assert await page.evaluate("window.drawn") == 0
    await page.evaluate(hide, False)
    await expect(slot).to_contain_text("paused", timeout=SOON_MS)


async def test_a_thousand_machines_are_not_all_drawn(watched: Watched, http_stack: Stack, producer: Producer) -> None:
    names = [f"m{i:04}" for i in range(1_000)]
    fleet = fleet_of(*names, num_gpus=2)
    await producer.apply(fleet)
    await producer.machine(fleet, names[0])
    report = str(await producer.redis.hget("machines", names[0]))
    await producer.redis.hset("machines", mapping={n: report.replace(f'"{names[0]}"', f'"{n}"', 1) for n in names})
    now = int((await producer.redis.time())[0]) * 1000
    await producer.redis.zadd("machines:seen", dict.fromkeys(names, now))
    items = [await producer.drift(n, "comfyui-gpu0") for n in names[:600]]
    await producer.status(*items)
    page = await watched.open(http_stack, "#/machines")
    await expect(page.locator("#shown")).to_have_text("1000 machines", timeout=SOON_MS)
    assert 1 <= await page.locator("article").count() <= 60
    assert await page.locator("body *").count() < 5_000
    await page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    await expect(page.locator("article", has_text=re.compile("m0[45]"))).not_to_have_count(0)
    assert await page.locator("article").count() <= 60
    await page.goto(f"{http_stack.monitor}/#/drift")
    await expect(page.locator("#shown")).to_have_text("600 differences")
    assert 1 <= await page.locator("tr[data-key]").count() <= 60
    await page.get_by_label("Search drift").fill("m0599")
    await expect(page.locator("tr[data-key]")).to_have_count(1)
    assert watched.complaints == []
