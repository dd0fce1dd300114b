"""A page that only looks (`monitor.role: read`): it shows all, and each command says why it cannot be asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from emp_orch.roles import Role
from support.http.browser import SOON_MS, Watched, populate
from support.http.stack import Producer, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def module_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("looks") / "fleet", monitor_role=Role.READ)
    with stack.running():
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def page_of_m1(http_stack: Stack, producer: Producer, watched: Watched) -> AsyncIterator[Watched]:
    await populate(producer)
    await watched.open(http_stack, "#/machines/m1")
    yield watched
    assert not [c for c in watched.complaints if "404" not in c]  # this machine has no log


async def test_a_command_says_why_it_cannot_be_asked_for(page_of_m1: Watched) -> None:
    page = page_of_m1.page
    await page.locator("[data-command=restart]").click()
    dialog = page.locator("dialog, [role=dialog]").first
    await expect(dialog.get_by_role("alert")).to_contain_text("monitor.role is read", timeout=SOON_MS)
    await expect(dialog.locator("button[type=submit]")).to_be_disabled()


async def test_jobs_are_shown_and_none_can_be_submitted(page_of_m1: Watched) -> None:
    page = page_of_m1.page
    await page.evaluate("location.hash = '#/jobs'")
    form = page.locator("form#submit")
    await expect(form.get_by_role("alert")).to_contain_text("monitor.role is read", timeout=SOON_MS)
    await expect(form.locator("button[type=submit]")).to_be_disabled()
