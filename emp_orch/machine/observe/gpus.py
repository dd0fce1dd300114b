"""The machine's GPUs, looked at now and then. Without a driver there are none, and nothing is wrong.

A driver in trouble may not answer for minutes, nor can its caller be stopped: each look has a thread of its own, and
nothing that ends waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from msgspec import structs

from emp_orch.fleet.model.observed import GpuReport
from emp_orch.host import gpus
from emp_orch.host.gpus import MIB, Broken, Gpu, Look, NoDriver

INTERVAL_S = 10.0
# A healthy driver that has to be loaded first takes a few seconds.
ANSWER_S = 30.0

Answer = Look | NoDriver | Broken


class GpuHistory:
    """Tells what is wrong from one look after another: a card that was there and is not any more."""

    def __init__(self) -> None:
        self._known: dict[str, Gpu] = {}

    def judge(self, answer: Answer) -> Look:
        """What to report after `answer`."""
        match answer:
            case NoDriver():
                return Look(error=f"the driver is gone: {answer}") if self._known else Look()
            case Broken():
                return Look(error=f"NVML does not work: {answer}")
            case Look():
                self._known |= {gpu.uuid: gpu for gpu in answer.gpus}
                here = {gpu.uuid for gpu in answer.gpus}
                gone = [f"{gpu} is gone" for uuid, gpu in self._known.items() if uuid not in here]
                # A card that is lost is named by the driver itself for as long as it still counts it.
                return answer if answer.error else structs.replace(answer, error="; ".join(gone))


class Gpus:
    """What the report says of GPUs; `on_change()` after it changed."""

    def __init__(self, on_change: Callable[[], None], look: Callable[[], Look] = gpus.look) -> None:
        self._on_change = on_change
        self._look = look
        self._history = GpuHistory()
        self._told = Look()

    @property
    def reports(self) -> tuple[GpuReport, ...]:
        return tuple(
            GpuReport(index=g.index, name=g.name, memory_mib=g.memory_bytes // MIB, uuid=g.uuid)
            for g in self._told.gpus
        )

    @property
    def error(self) -> str:
        return self._told.error

    async def run(self) -> None:
        """Look for ever."""
        while True:
            answering = _in_thread(self._look)
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await asyncio.shield(answering)
            except TimeoutError:
                self._tell(structs.replace(self._told, error=f"NVML has not answered for {ANSWER_S:g} s"))
                answer = await answering  # one look at a time
            self._tell(self._history.judge(answer))
            await asyncio.sleep(INTERVAL_S)

    def _tell(self, told: Look) -> None:
        if told != self._told:
            self._told = told
            self._on_change()


def _in_thread(look: Callable[[], Look]) -> asyncio.Future[Answer]:
    """`look` in a thread that keeps neither the loop nor the process from ending."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answer] = loop.create_future()

    def tell(found: Answer) -> None:
        if not answer.done():
            answer.set_result(found)

    def run() -> None:
        found: Answer
        try:
            found = look()
        except (NoDriver, Broken) as e:
            found = e
        except Exception as e:  # noqa: BLE001  # whatever the bindings raise, the agent goes on
            found = Broken(f"{type(e).__name__}: {e}")
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=run, name="nvml", daemon=True).start()
    return answer
