"""Where one worker saves what jobs make and finds what they bring: the store itself, or through the API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn, Protocol

from msgspec import Struct

from emp_orch.connectors.base import Sink
from emp_orch.fleet.desired.artifacts import THROUGH_API
from emp_orch.jobs.document.model import InputSource, Job
from emp_orch.store.artifacts.api_access import access_file
from emp_orch.store.artifacts.assets import Assets
from emp_orch.store.artifacts.input_sources import Content
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import BadArtifactsUrl, CannotRead, CannotStore
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import Call
from emp_orch.worker.config import machine_folder
from emp_orch.worker.files.api_client import ApiClient
from emp_orch.worker.files.inputs import Finds, StoredInputs
from emp_orch.worker.files.remote_artifacts import RemoteArtifacts, RemoteInputs
from emp_orch.worker.state import WorkerState

log = logging.getLogger("emp.worker")

# A store that does not work is tried again this often.
AGAIN_S = 10.0


async def _nothing() -> None:
    """There is nothing to close."""


class RunSink(Sink, Protocol):
    """Where one run's outputs go."""

    async def prepare(self) -> None:
        """Do what can be done before there is an output. Raises nothing: saving will."""


class Saves(Protocol):
    """Where runs' outputs go: store/artifacts/store, or the API (remote_artifacts)."""

    def run(self, job_id: str, run: str) -> RunSink: ...

    async def check(self) -> None: ...


class Store(Struct, frozen=True, kw_only=True):
    """`fault`: why it is none."""

    artifacts: Saves
    inputs: Finds
    aclose: Callable[[], Awaitable[None]] = _nothing
    fault: str = ""


class NoStore:
    """A store that cannot be opened here: its package is not installed, or its URL is none."""

    def __init__(self, why: str) -> None:
        self._why = why

    def run(self, job_id: str, run: str) -> RunSink:
        self._refuse()

    async def check(self) -> None:
        self._refuse()

    async def find(self, name: str, source: InputSource, job: Job, run: str) -> Content:
        raise CannotRead(self._why)

    def _refuse(self) -> NoReturn:
        raise CannotStore(self._why, retryable=True)


def store_of(url: str, r: Client, keys: Keys, call: Call) -> Store:
    """What a worker is told by `url`."""
    if url == THROUGH_API:
        api = ApiClient(access_file(machine_folder() or Path()))
        return Store(artifacts=RemoteArtifacts(api, machine_folder()), inputs=RemoteInputs(api), aclose=api.aclose)
    try:
        artifacts = Artifacts(url)
    except BadArtifactsUrl as e:
        why = f"{e.message}; {e.hint}" if e.hint else e.message
        return Store(artifacts=NoStore(why), inputs=NoStore(why), fault=why)
    inputs = StoredInputs(artifacts, Assets(artifacts, r, keys), Queue(r, keys, call))
    return Store(artifacts=artifacts, inputs=inputs)


class StoreWatch:
    """Whether outputs can be saved: tried at first, and again whenever a run could not. No job is begun while they
    cannot.
    """

    def __init__(self, artifacts: Saves, state: WorkerState) -> None:
        self._artifacts = artifacts
        self._state = state
        self._doubted = asyncio.Event()
        self._told = ""

    async def run(self) -> NoReturn:
        """Try until it works, each time that it is found not to."""
        while True:
            while why := await self._fault():
                self._tell(why)
                await asyncio.sleep(AGAIN_S)
            self._tell("")
            self._doubted.clear()
            await self._doubted.wait()

    async def is_broken(self, within_s: float) -> bool:
        """Whether nothing can be saved now, after a run could not; then no job is begun until something can."""
        try:
            async with asyncio.timeout(within_s):
                why = await self._fault()
        except TimeoutError:
            why = f"the artifact store does not work: no answer within {within_s:g} s"
        if why:
            self._tell(why)
            self._doubted.set()
        return bool(why)

    async def _fault(self) -> str:
        try:
            await self._artifacts.check()
        except CannotStore as e:
            return f"{e.message}; {e.hint}" if e.hint else e.message
        return ""

    def _tell(self, why: str) -> None:
        if why and why != self._told:
            log.error("%s", why)
        elif self._told and not why:
            log.info("outputs can be saved again")
        self._told = why
        self._state.set_store_error(why)
