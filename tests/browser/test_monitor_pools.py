"""Pools on the page: a group in the overview, a page for each, and members that come and go while one looks."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.fleet.model.overrides import OverrideKind
from emp_orch.store.fleet import journal
from emp_orch.store.fleet.overrides import read_overrides
from support.http.browser import SOON_MS, Watched, problems
from support.http.pools import PoolScene
from support.http.stack import FLEET, Producer, Stack, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEWS = ("overview", "pools", "pools/renders")


@pytest.fixture
def scene(http_stack: Stack, producer: Producer) -> PoolScene:
    return PoolScene(http_stack, producer)


async def peopled(scene: PoolScene) -> dict[str, tuple[str, str]]:
    """One idle, one busy, one silent, one that left, two awaited; the ids and tokens of those that joined."""
    await scene.apply()
    joined = {name: await scene.join(name) for name in ("idle", "busy", "silent", "gone")}
    await scene.report(joined["busy"][0], status=WorkerStatus.BUSY)
    for suffix in ("ab12", "cd34"):
        await scene.expect(suffix)
    await scene.leave(joined["gone"][1])
    await scene.producer.silence(joined["silent"][0], 60_000)
    await scene.says(6, 5, lived=True, waiting=3, running=1, expected=2, coming="; up to 7 in 9 s")
    return joined


async def test_the_overview_shows_each_pool_as_a_group(watched: Watched, http_stack: Stack, scene: PoolScene) -> None:
    joined = await peopled(scene)
    page = await watched.open(http_stack)
    pool = page.locator("[data-pool=renders]")
    await expect(pool.locator(".pool-size")).to_have_text("5 of 0..40, wants 6")
    await expect(pool.locator(".why")).to_have_text("6 jobs wait, 1 a GPU: 6 wanted, 5 there; up to 7 in 9 s")
    for state, count in (("ready", 2), ("expected", 2), ("silent", 1), ("left", 1)):
        await expect(pool.locator(f"[data-state={state}]")).to_contain_text(f"{count} {state}")
    cards = pool.locator("article")
    await expect(cards).to_have_count(6)
    await expect(cards.first).to_have_attribute("data-machine", joined["silent"][0])
    # Who is expected, or left, is no silent machine.
    await expect(pool.locator(".problem")).to_have_count(1)
    await expect(pool.locator("[data-machine=renders-ab12]")).to_contain_text("its box has not joined yet")
    left = pool.locator(f"[data-machine={joined['gone'][0]}]")
    await expect(left).to_contain_text("Left in good order: its time is over.")
    await expect(left).not_to_contain_text("Silent")
    # The machines beside it are those of emp.yaml, and nobody counts on who is not there.
    await expect(page.locator("#machines article")).to_have_count(1)
    await expect(page.locator(".figure", has_text="machines ready")).to_contain_text("3/4")
    assert watched.complaints == []


async def test_a_member_comes_and_one_goes_while_one_looks(
    watched: Watched, http_stack: Stack, scene: PoolScene
) -> None:
    await scene.apply()
    _, token = await scene.join("first")
    await scene.says(2, 1)
    page = await watched.open(http_stack, "#/pools/renders")
    await expect(page.locator(".pool-size")).to_have_text("1 of 0..40, wants 2")
    await expect(page.locator("#history li")).to_have_count(1)
    second, _ = await scene.join("second", reports=False)
    card = page.locator(f"#members [data-machine={second}]")
    await expect(card).to_contain_text("it has not reported yet", timeout=SOON_MS)
    await scene.report(second)
    await expect(card.locator("header .badge")).to_contain_text("ready", timeout=SOON_MS)
    await expect(page.locator("#history li").first).to_contain_text(f"{second} joined calls itself second")
    await scene.says(2, 2)
    await expect(page.locator(".pool-size")).to_have_text("2 of 0..40", timeout=SOON_MS)
    await scene.leave(token, why="SIGTERM", returned=2)
    await expect(page.locator("#history li").first).to_contain_text(
        "left in good order SIGTERM; 2 jobs went back", timeout=SOON_MS
    )
    await expect(page.locator(".pool-size")).to_have_text("1 of 0..40", timeout=SOON_MS)
    member = await scene.members.get(second)
    assert member is not None and await scene.members.remove(member)
    await expect(card).to_have_count(0, timeout=SOON_MS)
    # All of it came as changes: one snapshot was read, and nothing is asked for again and again.
    assert await page.evaluate("window.emp.store.revision") > 3
    assert sum("/api/events/monitor" in url for url in watched.urls) == 1
    assert not [url for url in watched.urls if "/api/monitor/state" in url]
    assert watched.complaints == [] and await watched.not_reloaded()


async def test_its_page_tells_how_it_fared_and_why(watched: Watched, http_stack: Stack, scene: PoolScene) -> None:
    await peopled(scene)
    mandate = await scene.producer.mandate()
    told: list[Entry] = [
        ("pool_resized", {"pool": "renders", "from": 2, "to": 6, "reason": "6 jobs wait, 1 a GPU"}),
        ("pool_resized", {"pool": "beside", "from": 0, "to": 1, "reason": "another's"}),
        ("member_asked", {"pool": "renders", "machine_id": "renders-ab12", "reason": "2 jobs wait"}),
        ("member_removed", {"pool": "renders", "machine_id": "renders-zz", "reason": "nothing waits <b>"}),
        (
            "member_forgotten",
            {"pool": "renders", "machine_id": "renders-yy", "how": "vanished", "why": "its box is off"},
        ),
    ]
    await journal.write(scene.producer.redis, scene.producer.keys, mandate, told)
    page = await watched.open(http_stack, "#/pools/renders")
    for chart, said in (("pool-jobs", "now 3 waiting, 1 running"), ("pool-members", "now 5 there, 6 wanted")):
        await expect(page.locator(f"[data-chart={chart}] figcaption")).to_contain_text(said, timeout=SOON_MS)
        await expect(page.locator(f"[data-chart={chart}] canvas")).to_be_visible()
    history = page.locator("#history")
    for line in (
        "renders-yy forgotten: vanished its box is off",
        "renders-zz removed nothing waits <b>",
        "renders-ab12 asked for 2 jobs wait",
        "wants 6, not 2 6 jobs wait, 1 a GPU",
    ):
        await expect(history).to_contain_text(line)
    await expect(history).not_to_contain_text("another's")
    await page.locator("[data-filter=span]").select_option("600")
    await expect(page.locator("[data-chart=pool-jobs] canvas")).to_be_visible()
    assert page.url.endswith("#/pools/renders?span=600")
    await page.locator("#why [data-state=silent] a").click()
    await expect(page.locator("#members article")).to_have_count(1)
    assert watched.complaints == []


async def test_a_new_point_comes_with_the_stream(watched: Watched, http_stack: Stack, scene: PoolScene) -> None:
    await scene.apply()
    await scene.says(1, 0)
    page = await watched.open(http_stack, "#/pools/renders")
    counted = "window.emp.store.points.byKey.size"
    assert await page.evaluate(counted) == 0
    await scene.says(1, 1, lived=True)
    await eventually(lambda: page.evaluate(f"{counted} > 10"), "the points are there")
    assert sum("/api/events/monitor" in url for url in watched.urls) == 1


async def test_a_pool_is_held_at_a_size_and_follows_again(
    watched: Watched, http_stack: Stack, scene: PoolScene
) -> None:
    await scene.apply()
    await scene.says(2, 0)
    page = await watched.open(http_stack, "#/pools/renders")
    await expect(page.locator("[data-command=follow]")).to_have_count(0)
    await page.locator("[data-command=scale]").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Members, 0 to 40").fill("41")
    await dialog.get_by_role("button", name="Scale").click()
    await expect(dialog).to_be_visible()  # the browser says that it is too much
    await dialog.get_by_label("Members, 0 to 40").fill("5")
    await dialog.get_by_label("Reason").fill("a demo <b>")
    await scene.says(3, 0)
    await expect(page.locator("#why")).to_contain_text(
        "3 jobs wait", timeout=SOON_MS
    )  # the page was drawn anew, and took nothing back
    await expect(dialog.get_by_label("Members, 0 to 40")).to_have_value("5")
    await dialog.get_by_role("button", name="Scale").click()
    await expect(page.locator("#toast")).to_contain_text("done")
    await expect(page.locator("#why .chip")).to_have_text("held at 5: a demo <b> (by the page)", timeout=SOON_MS)
    await expect(page.locator("[data-override='scale:renders']")).to_contain_text("held at 5: renders")
    (order,) = await read_overrides(scene.producer.redis, scene.producer.keys, FLEET)
    assert (order.kind, order.size, order.by) == (OverrideKind.SCALE, 5, "the page")
    await page.locator("[data-command=follow]").click()
    await dialog.get_by_role("button", name="Follow the queue").click()
    await expect(page.locator("#why .chip")).to_have_count(0, timeout=SOON_MS)
    assert await read_overrides(scene.producer.redis, scene.producer.keys, FLEET) == ()
    assert watched.complaints == []


async def test_a_fleet_without_pools_has_no_view_of_them(
    watched: Watched, http_stack: Stack, producer: Producer
) -> None:
    scene = PoolScene(http_stack, producer)
    await scene.apply()
    await scene.says(0, 0)
    page = await watched.open(http_stack)
    link = page.get_by_role("navigation").get_by_role("link", name="pools")
    await link.click()
    await expect(page.locator("[data-pool=renders]")).to_contain_text("It has no members now.")
    await page.keyboard.press("g")
    await page.keyboard.press("o")
    await producer.status()
    await producer.apply(scene.plain)
    await expect(link).to_have_count(0, timeout=SOON_MS)
    await expect(page.locator("[data-pool]")).to_have_count(0)
    await page.goto(f"{http_stack.monitor}/#/pools/renders")
    await expect(page.locator("h1")).to_have_text("There is no pool renders")
    assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_serious_problem(browser: Browser, http_stack: Stack, scene: PoolScene, scheme: str) -> None:
    await peopled(scene)
    watched = await Watched.new(browser, color_scheme=scheme, reduced_motion="reduce")
    try:
        page = await watched.open(http_stack)
        for view in VIEWS:
            await page.evaluate("(view) => (location.hash = `#/${view}`)", view)
            await expect(page.locator("[data-pool=renders]").first).to_be_visible()
            assert await problems(page) == [], (view, scheme)
    finally:
        await watched.close()


@pytest.mark.parametrize("view", VIEWS)
async def test_pools_fit_a_phone(browser: Browser, http_stack: Stack, scene: PoolScene, view: str) -> None:
    await peopled(scene)
    await scene.says(6, 5, engine="no node has a free gpu: " + "x" * 200, why="y" * 200)
    watched = await Watched.new(browser, viewport={"width": 360, "height": 740})
    try:
        page = await watched.open(http_stack, f"#/{view}")
        await expect(page.locator("[data-pool=renders]").first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    finally:
        await watched.close()
