"""A provider of another package, as one is installed: boxes are processes that sleep, each with a file that names it.

Its text goes into a folder of its own, beside what pip would leave; it imports nothing of the tests.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.runtimes.providers.base import Launch, Making, ProviderError

SLEEPS = "86399"


class Boxes:
    """`folder` of its options holds a file for each box, with its pid; a file `full` there: it has no place."""

    def __init__(self, making: Making) -> None:
        self._folder = Path(str(making.options["folder"]))
        self._folder.mkdir(parents=True, exist_ok=True)

    async def boxes(self) -> tuple[Box, ...]:
        found = []
        for path in sorted(self._folder.glob("*.box")):
            alive = Path("/proc", path.read_text(), "exe").exists() if path.read_text() else False
            state = BoxState.RUNNING if alive else BoxState.ENDED
            found.append(Box(member_id=MachineId(path.stem), state=state, words="" if alive else "it was killed"))
        return tuple(found)

    async def create(self, launch: Launch) -> None:
        if (self._folder / "full").exists():
            raise ProviderError("no node has a free gpu")
        path = self._folder / f"{launch.member_id}.box"
        if path.exists():
            return
        box = subprocess.Popen(["sleep", SLEEPS], start_new_session=True, env={"PATH": os.environ["PATH"]})
        path.write_text(str(box.pid))

    async def remove(self, member_id: MachineId, *, stop_s: float) -> None:
        path = self._folder / f"{member_id}.box"
        if path.exists():
            subprocess.run(["kill", path.read_text()], check=False, stderr=subprocess.DEVNULL)
            path.unlink()

    async def watch(self, changed: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass
