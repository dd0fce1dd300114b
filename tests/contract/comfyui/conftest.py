"""One suite for emp's twin of ComfyUI, always, and for the real program, when COMFYUI names a checkout of it.

COMFYUI_PYTHON names its interpreter; without it that of the checkout's .venv or venv. The checkout is not written to:
folders, database and our nodes are given on the command line.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from emp_orch.services.simulation.versions import NEWEST, VERSIONS, Version
from support.comfyui.client import Client, Make
from support.comfyui.service import ComfyService, running, this_python, twin_checkout
from support.redis.server import until

REAL = os.environ.get("COMFYUI", "")


def _real_python() -> str:
    found = [Path(REAL) / name / "bin" / "python" for name in (".venv", "venv")]
    chosen = os.environ.get("COMFYUI_PYTHON") or next((str(p) for p in found if p.exists()), "")
    if not chosen:
        raise pytest.UsageError(f"COMFYUI={REAL} has no .venv: name its interpreter with COMFYUI_PYTHON")
    return chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "make" in metafunc.fixturenames:
        every = metafunc.definition.get_closest_marker("each_version")
        twins = [f"twin-{name}" for name in VERSIONS] if every else [f"twin-{NEWEST}"]
        metafunc.parametrize("make", [*twins, *(["real"] if REAL else [])], indirect=True, scope="session")


@pytest.fixture(scope="session")
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A service of this kind that does not run yet."""
    if request.param == "real":
        checkout, python = Path(REAL).absolute(), _real_python()
    else:
        version = request.param.removeprefix("twin-")
        checkout = twin_checkout(tmp_path_factory.mktemp("checkout"), step_s=0.01, version=version)
        python = this_python()

    def made(files: Path | None = None) -> ComfyService:
        return ComfyService(checkout, python, tmp_path_factory.mktemp("comfyui"), files=files)

    return made


@pytest.fixture(scope="session")
def service(make: Make) -> Iterator[ComfyService]:
    """One that runs, for all tests that leave it whole."""
    with running(make()) as found:
        yield found


@pytest.fixture(scope="session")
def version(service: ComfyService) -> Version:
    return version_of(service)


def version_of(service: ComfyService) -> Version:
    """The newest that the twin knows and that is not newer than this service."""
    told = service.get("/system_stats")["system"]["comfyui_version"]
    wanted = tuple(int(n) for n in told.split("."))
    return [v for v in VERSIONS.values() if tuple(int(n) for n in (v.since or v.name).split(".")) <= wanted][-1]


@pytest.fixture
async def client(service: ComfyService) -> AsyncIterator[Client]:
    found = Client(service.url)
    try:
        yield found
        # What a test left behind would be the next one's trouble.
        await found.post("/queue", {"clear": True})
        await found.post("/interrupt")

        async def empty() -> bool:
            queue = await found.get("/queue")
            return not queue["queue_running"] and not queue["queue_pending"]

        await until(empty)
    finally:
        await found.http.close()
