"""`emp machine --stay`: stay as the parent of the machine's supervisord, in a container or a terminal.

A signal ends the machine in good order: workers finish their jobs while their services still run, then the rest. A
second one ends it at once but still in order, a third by force. What supervisord logs is repeated on stdout.

A box that has less time than its workers may take is told how much (`--notice`): jobs that do not end in it go back to
their places. A member of a pool says that it goes, once its jobs have ended or the time is nearly over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emp_orch.errors import EmpError
from emp_orch.host import notice
from emp_orch.machine.boot.bootstrap import make, mark_of
from emp_orch.machine.boot.join import Membership
from emp_orch.machine.boot.log_relay import LogRelay
from emp_orch.marks import Mark
from emp_orch.procident import ProcessIdentity, alive, identify, on_end, recorded, send
from emp_orch.runtimes.process.stop import end_left, end_machine
from emp_orch.store.acl.joining import MAX_RETURNED, Leaving

log = logging.getLogger("machine")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Once somebody asked twice, what supervisord stops has this long.
HURRIED_S = 10.0


class Goodbye:
    """What a machine is told when it is to end, and its last word, said once. `notice_s`: how long the box has then."""

    def __init__(self, root: Path, membership: Membership, notice_s: float | None) -> None:
        self._root = root
        self._membership = membership
        self._why = ""
        self.notice_s = notice_s

    def told(self, why: str) -> None:
        notice.give(self._root, self.notice_s)
        self._why = why

    async def say(self) -> None:
        """Nothing where nobody told it to end, or it was said."""
        why, self._why = self._why, ""
        if not why:
            return
        count = min(MAX_RETURNED, notice.returned(self._root))
        if count:
            log.info("%d jobs went back to their places", count)
        try:
            await self._membership.leave(Leaving(why=why, returned=count))
        except asyncio.CancelledError:
            self._why = why
            raise
        except EmpError as e:  # then it is silent, and forgotten later
            log.warning("could not say that this box goes: %s", e.message)


def run_in_foreground(machine_id: str, root: Path, goodbye: Goodbye, *, logfile: Path) -> None:
    """Fork: return in the child, which is to become supervisord of `root`; in the parent stay until it has ended.

    The parent leaves by SystemExit with supervisord's exit code. `logfile` is what supervisord writes.
    """
    make(root)
    notice.clear(root)
    mark, _ = mark_of(machine_id, root)
    _end_former(root, mark)
    asked: list[int] = []
    before = {sig: signal.signal(sig, lambda sig, _: asked.append(sig)) for sig in SIGNALS}
    relay = LogRelay(logfile)  # from where the log ends now
    child = os.fork()
    if child == 0:
        for sig, handler in before.items():
            signal.signal(sig, handler)
        os.setsid()  # a terminal's Ctrl-C is for the parent, which ends things in order
        return
    who = identify(child)
    if who is not None:
        asyncio.run(_until_end(root, mark, who, relay, asked, goodbye))
        end_left(root, mark)
        asyncio.run(goodbye.say())
    _, status = os.waitpid(child, 0)
    relay.rest()
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


def _end_former(root: Path, mark: Mark) -> None:
    """End what a former life left running here, when its supervisord is gone; its marks go as well."""
    who = recorded(root / "run" / "supervisord")
    if who is None or not alive(who):
        end_left(root, mark)


async def _until_end(
    root: Path, mark: Mark, who: ProcessIdentity, relay: LogRelay, asked: list[int], goodbye: Goodbye
) -> None:
    """Until supervisord, which is `who`, has ended: by itself, or as the signals ask."""
    ended = asyncio.Event()
    signals = asyncio.Semaphore(0)
    with on_end(who.pid, ended.set, asyncio.get_running_loop()), _on_signals(signals.release):
        for _ in asked:
            signals.release()
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(relay.run(), name="log")
            ending = group.create_task(_end_as_asked(root, mark, who, signals, goodbye), name="ending")
            await ended.wait()
            ending.cancel()
            telling.cancel()


async def _end_as_asked(
    root: Path, mark: Mark, who: ProcessIdentity, signals: asyncio.Semaphore, goodbye: Goodbye
) -> None:
    """Each signal takes the next, harder way; a way that comes to its end leaves supervisord to the last one."""
    await signals.acquire()
    log.info("ending the machine: its workers may finish what they do")
    goodbye.told("the box was told to end (SIGTERM)")
    if await _unless(signals, _end(root, who, goodbye)):
        log.info("ending the machine at once")
        send(who, signal.SIGTERM)
        await _unless(signals, asyncio.sleep(HURRIED_S))
    if alive(who):
        log.info("killing the machine's supervisord and its programs")
        await asyncio.to_thread(end_left, root, mark, grace_s=0.0)


async def _end(root: Path, who: ProcessIdentity, goodbye: Goodbye) -> None:
    """End the machine in good order; where the box has too little time for that, the last word is said before."""
    async with asyncio.TaskGroup() as group:
        soon = group.create_task(_say_in_time(goodbye), name="last word")
        await end_machine(root, who)
        soon.cancel()


async def _say_in_time(goodbye: Goodbye) -> None:
    if goodbye.notice_s is not None:
        # Once the jobs have gone back, and some time before the box is gone.
        await asyncio.sleep((notice.jobs_s(goodbye.notice_s) + goodbye.notice_s) / 2)
        await goodbye.say()


async def _unless(signals: asyncio.Semaphore, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work`; a signal cuts it short. Whether one did."""
    doing = asyncio.create_task(work)
    asking = asyncio.create_task(signals.acquire())
    try:
        await asyncio.wait({doing, asking}, return_when=asyncio.FIRST_COMPLETED)
        return asking.done()
    finally:
        for task in (doing, asking):
            task.cancel()


@contextmanager
def _on_signals(call: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for sig in SIGNALS:
        loop.add_signal_handler(sig, call)
    try:
        yield
    finally:
        for sig in SIGNALS:
            loop.remove_signal_handler(sig)
            signal.signal(sig, signal.SIG_IGN)  # what is left to do is short
