"""Operations under way: each runs beside the rounds, since a machine's stop may take as long as its drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from emp_orch.control.leader.execute import Executor
from emp_orch.control.limits import MAX_ERROR
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.plan.operations import Operation
from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.redis.client import TRANSIENT

log = logging.getLogger("reconcile")


Write = Callable[[list[Entry]], Awaitable[None]]


class Listener(Protocol):
    """Who is told of outcomes: the reconciler."""

    def handed_over(self, key: str) -> None: ...

    def given_up(self, key: str) -> None: ...

    async def ended(self, key: str, *, error: str = "") -> None: ...


class Operations:
    """Runs operations in `group`, and writes what came of them. `wake` is called at each end.

    `telling` is held while a round is told, and while an outcome is: it is given in the order it was asked for, so the
    journal has the beginning of an operation before its end, however short it was.
    """

    def __init__(
        self,
        executor: Executor,
        group: asyncio.TaskGroup,
        write: Write,
        wake: Callable[[], None],
        before: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`before` is awaited with the id of a machine of the fleet that is to be acted on."""
        self._executor = executor
        self._before = before
        self._group = group
        self._write = write
        self._wake = wake
        self.telling = asyncio.Lock()
        self.listener: Listener | None = None

    def begin(self, operation: Operation, desired: Desired, mandate: Mandate) -> None:
        self._group.create_task(self._run(operation, desired, mandate), name=operation.key)

    async def _run(self, operation: Operation, desired: Desired, mandate: Mandate) -> None:
        outcome: dict[str, object] = {"operation": operation.key, "machine_id": operation.machine_id}
        try:
            if self._before is not None and operation.machine_id in desired.machines:
                await self._before(operation.machine_id)
            done = await self._executor.run(operation, desired, mandate)
            outcome |= {"outcome": "done"} if done else {}
        except NotLeader as e:
            done = True
            log.warning("%s: %s", operation.key, e.message)
            outcome |= {"outcome": "given up", "error": e.message}
        except EmpError as e:
            done = True
            outcome |= {"outcome": "failed", "error": e.message, "hint": e.hint}
        except TRANSIENT as e:
            done = True
            outcome |= {"outcome": "failed", "error": str(e) or type(e).__name__}
        except Exception as e:  # nobody foresaw it: it is this operation that failed, and no other
            done = True
            log.exception("%s failed", operation.key)
            outcome |= {"outcome": "failed", "error": f"{type(e).__name__}: {e}"[:MAX_ERROR]}
        if self.listener is not None:
            if outcome.get("outcome") == "given up":
                self.listener.given_up(operation.key)
            elif done:
                error, hint = outcome.get("error", ""), outcome.get("hint")
                await self.listener.ended(operation.key, error=f"{error} ({hint})" if hint else str(error))
            else:
                self.listener.handed_over(operation.key)
        self._wake()
        with suppress(NotLeader, *TRANSIENT):  # the log has it; the journal is not worth a crash
            async with self.telling:
                await self._write([("operation_ended" if done else "operation_sent", outcome)])
