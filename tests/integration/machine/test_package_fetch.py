"""A machine gets its worker package from servers that misbehave, and says what is wrong while it does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.package import fetch as package_fetch
from emp_orch.machine.package import keep
from emp_orch.machine.package.fetch import FetchError, fetch
from emp_orch.machine.package.keep import Packages
from emp_orch.store.artifacts.api_access import ApiAccess
from support.machine.package import Server, digest_of, files_below, serving, small
from support.redis.server import until

OLD, NEW = small("old"), small("new")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between tries, and what counts as slow."""
    monkeypatch.setattr(keep, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(keep, "MAX_PAUSE_S", 0.05)
    slow = aiohttp.ClientTimeout(total=20, sock_read=0.5)
    monkeypatch.setattr(keep, "fetch", lambda *a, **k: fetch(*a, **k, timeout=slow))


class Machine:
    """The part of an agent that keeps the package."""

    def __init__(self, folder: Path, url: str, *, used: frozenset[str] | None = frozenset(), **more: Any) -> None:
        self.folder = MachineFolder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder.api_access.write_bytes(msgspec.json.encode({"url": url, **more}))
        self.used = used
        self.events: list[dict[str, str]] = []
        self.packages = Packages(
            self.folder,
            tell=lambda type_, **data: self.events.append(data),
            on_change=lambda: None,
            in_use=lambda: self.used,
            patience_s=0.3,
        )

    @asynccontextmanager
    async def running(self, *archives: bytes) -> AsyncIterator[Machine]:
        for archive in archives:
            self.packages.want(WorkerPackage(digest=digest_of(archive)))
        task = asyncio.create_task(self.packages.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def has(self, archive: bytes) -> None:
        """Until it has `archive` in force, whole, and nothing else on its disk."""

        async def look() -> bool:
            left = {p.name for p in self.folder.packages.iterdir()} if self.folder.packages.exists() else set()
            return left == {".lock", "current", digest_of(archive)} and self.packages.current == digest_of(archive)

        await until(look, within_s=30.0)
        assert files_below(self.folder.packages / "current")["emp_orch/version.py"] in (b"old", b"new")
        assert self.packages.error == ""

    async def says(self, error: str) -> None:
        async def look() -> bool:
            return error in self.packages.error

        try:
            await until(look, within_s=10.0)
        except TimeoutError:
            raise AssertionError(f"{error!r} is not in {self.packages.error!r}") from None

    @property
    def phases(self) -> list[str]:
        return [e["phase"] for e in self.events]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", "answered 429 Too Many Requests"),
        ("500", "answered 500 Internal Server Error"),
        ("redirect", "answered 302 Found"),
        ("wrong bytes", "the archive has the sha256"),
        ("cut", "Response payload is not completed"),
        ("stall", "is too slow, or does not answer"),
        ("other range", "has another archive than was begun with"),
        ("no range", "has another archive than was begun with"),
        ("endless", "is larger than 1 MiB"),
    ],
)
async def test_each_fault_is_told_and_overcome(
    tmp_path: Path, fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_fetch, "MAX_BYTES", 1024**2)
    server = Server(OLD, NEW)
    async with serving(server.answer) as url, Machine(tmp_path, url).running(OLD) as machine:
        await machine.has(OLD)
        server.faults = [fault, fault]
        machine.packages.want(WorkerPackage(digest=digest_of(NEW)))
        await machine.has(NEW)
    assert machine.phases[:2] == ["downloading", "ready"] and machine.phases[2:] == ["downloading", "failed", "ready"]
    failed = machine.events[3]
    assert said in failed["error"]
    assert (failed["package"], failed["current"]) == (digest_of(NEW), digest_of(OLD))


async def test_what_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    server = Server(NEW)
    server.faults = ["cut"]
    async with serving(server.answer) as url, Machine(tmp_path, url).running(NEW) as machine:
        await machine.has(NEW)
    assert [headers.get("Range") for _, headers in server.asked] == [None, f"bytes={len(NEW) // 2}-"]
    server.faults = ["cut", "whole"]  # a server that knows no ranges
    async with serving(server.answer) as url, Machine(tmp_path / "other", url).running(NEW) as machine:
        await machine.has(NEW)


async def test_a_server_that_wants_to_be_left_alone_is(tmp_path: Path) -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "7"})

    wanted = WorkerPackage(digest=digest_of(NEW))
    async with serving(busy) as url:
        access = ApiAccess(url=url)
        with pytest.raises(FetchError) as caught:
            await fetch(wanted, access, tmp_path / "part", wanted=lambda: True)
    assert caught.value.after_s == 7.0
    machine = Machine(tmp_path, "http://127.0.0.1:1")
    assert 7.0 <= machine.packages._failed(wanted, caught.value) <= 7.1


async def test_the_token_goes_to_the_api_and_to_nobody_else(tmp_path: Path) -> None:
    server = Server(OLD, NEW)
    async with serving(server.answer) as url, Machine(tmp_path, url, token="hunter2").running(OLD) as machine:
        await machine.has(OLD)
        elsewhere = f"http://user:secret@{url.removeprefix('http://')}/elsewhere/"
        machine.packages.want(WorkerPackage(digest=digest_of(NEW), url=f"{elsewhere}nothing?signature=s3cret"))
        await machine.says("/elsewhere/nothing answered 404")
        machine.packages.want(WorkerPackage(digest=digest_of(NEW), url=elsewhere + digest_of(NEW)))
        await machine.has(NEW)
    by_path = dict(server.asked)
    assert by_path[f"/packages/{digest_of(OLD)}"]["Authorization"] == "Bearer hunter2"
    assert by_path[f"/elsewhere/{digest_of(NEW)}"]["Authorization"].startswith("Basic ")
    told = str(machine.events)
    assert "s3cret" not in told and "secret@" not in told and "hunter2" not in told


async def test_starts_from_what_there_is_when_nobody_answers(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:1"
    async with Machine(tmp_path, nobody).running(NEW) as machine:
        await machine.packages.before_start()
        await machine.packages.before_start()
    assert machine.phases == ["downloading", "failed", "fallback"]
    assert machine.events[-1]["current"] == "" and "127.0.0.1:1" in machine.events[-1]["error"]
    async with serving(Server(OLD).answer) as url, Machine(tmp_path, url).running(OLD) as machine:
        await machine.has(OLD)
    async with Machine(tmp_path, nobody).running(NEW) as machine:
        await machine.packages.before_start()
        assert machine.events[-1]["phase"] == "fallback" and machine.packages.current == digest_of(OLD)
    async with Machine(tmp_path, nobody).running(OLD) as machine:
        await machine.packages.before_start()
        assert machine.events == []


async def test_what_workers_run_from_stays_until_they_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving(Server(OLD, NEW).answer) as url, Machine(tmp_path, url).running(OLD) as machine:
        await machine.has(OLD)
        machine.used = None  # one is starting, from who knows which
        machine.packages.want(WorkerPackage(digest=digest_of(NEW)))

        async def switched() -> bool:
            return machine.packages.current == digest_of(NEW)

        await until(switched)
        for used in (None, frozenset({digest_of(OLD)})):
            machine.used = used
            machine.packages.nudge()
            await machine.packages._tidy()
            assert (machine.folder.packages / digest_of(OLD)).is_dir()
        machine.used = frozenset({digest_of(NEW)})
        machine.packages.nudge()
        await machine.has(NEW)

        async def told() -> bool:
            return f"Worker cache cleaned: {digest_of(OLD)[:12]} removed" in caplog.messages

        await until(told)


async def test_another_wish_ends_a_slow_download(tmp_path: Path) -> None:
    server = Server(OLD, NEW)
    server.faults = ["endless"]
    async with serving(server.answer) as url, Machine(tmp_path, url).running(NEW) as machine:

        async def begun() -> bool:
            return machine.folder.packages.exists() and bool(list(machine.folder.packages.glob(".*.part")))

        await until(begun)
        machine.packages.want(WorkerPackage(digest=digest_of(OLD)))
        await machine.has(OLD)


async def test_a_full_disk_is_told_and_the_download_taken_away(tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow large."""
    server = Server(NEW)
    async with serving(server.answer) as url:
        script = (
            "import asyncio, sys, resource\n"
            "from pathlib import Path\n"
            "from emp_orch.errors import EmpError\n"
            "from emp_orch.fleet.model.package import WorkerPackage\n"
            "from emp_orch.machine.package.fetch import fetch\n"
            "from emp_orch.store.artifacts.api_access import ApiAccess\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "part = Path(sys.argv[3])\n"
            "package = WorkerPackage(digest=sys.argv[2])\n"
            "try: asyncio.run(fetch(package, ApiAccess(url=sys.argv[1]), part, wanted=lambda: True))\n"
            "except EmpError as e: print(e.message, part.exists())\n"
        )
        argv = [sys.executable, "-c", script, url, digest_of(NEW), str(tmp_path / "part")]
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    assert done.stdout == f"cannot write in {tmp_path}: File too large False\n", done.stderr


async def test_a_hundred_starts_succeed(tmp_path: Path) -> None:
    """Ten machines, ten starts each, every one with another package than the last and faults on the way."""
    server = Server(OLD, NEW)
    faults = ["429", "500", "cut", "wrong bytes", "redirect", "", ""]

    async def machine(number: int, url: str) -> int:
        for start in range(10):
            server.faults.append(faults[(number + start) % len(faults)])
            archive = (OLD, NEW)[start % 2]
            async with Machine(tmp_path / str(number), url).running(archive) as made:
                await made.has(archive)
        return start + 1

    async with serving(server.answer) as url:
        starts = await asyncio.gather(*(machine(n, url) for n in range(10)))
    assert sum(starts) == 100
    assert len(server.asked) >= 100
