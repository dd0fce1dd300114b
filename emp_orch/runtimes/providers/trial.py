"""The contract tried on one provider: every rule, what came of it, and what could not be given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec import Struct, structs

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import MachineId, PoolName
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.runtimes.providers.base import Launch, Provider, ProviderError
from emp_orch.runtimes.providers.contract import ASK_AGAIN_S, RULES, Rule, Subject


class Tried(Struct, frozen=True, kw_only=True):
    """`rule` is its name, `promise` what it holds, `why` what was seen instead: empty where it was kept."""

    rule: str
    promise: str
    why: str = ""


class Trial:
    """Of one subject. Whoever reads `results` to the end, or not, calls `clear` at last."""

    def __init__(self, subject: Subject, rules: Sequence[Rule] = RULES) -> None:
        self._asked: set[tuple[str, PoolName, MachineId]] = set()
        self._make = subject.provider
        self._stop_s = 0.0
        self._within_s = subject.within_s
        self._rules = rules
        self._subject = structs.replace(subject, provider=self._noting)

    async def results(self) -> AsyncIterator[Tried]:
        """One rule after the other. Of one whose boxes cannot be given back that is told as well."""
        for rule in self._rules:
            tried = Tried(rule=getattr(rule, "__name__", ""), promise=(rule.__doc__ or "").strip())
            try:
                await rule(self._subject)
            except EmpError as e:
                yield structs.replace(tried, why="; ".join([_words(e), *getattr(e, "__notes__", ())]))
            else:
                yield tried

    async def clear(self) -> tuple[str, ...]:
        """Give back what is left of all that was asked for: what stays all the same, in words, each a line."""
        left: list[str] = []
        for fleet, pool in sorted({(f, p) for f, p, _ in self._asked}):
            mine = {m for f, p, m in self._asked if (f, p) == (fleet, pool)}
            provider = self._make(fleet, pool)
            try:
                left += [f"{box.member_id} ({box.ref or 'no ref'})" for box in await self._cleared(provider, mine)]
            except ProviderError as e:
                left.append(f"perhaps boxes of pool {pool} of fleet {fleet}: {_words(e)}")
            finally:
                await provider.aclose()
        return tuple(left)

    async def _cleared(self, provider: Provider, mine: set[MachineId]) -> list[Box]:
        """Those of `mine` that live on though they were given back."""
        deadline = time.monotonic() + self._within_s
        told: set[MachineId] = set()
        while True:
            living = [b for b in await provider.boxes() if b.member_id in mine and b.state is not BoxState.ENDED]
            if not living or time.monotonic() > deadline:
                return living
            for box in living:
                if box.member_id not in told:
                    told.add(box.member_id)
                    await provider.remove(box.member_id, stop_s=self._stop_s)
            await asyncio.sleep(ASK_AGAIN_S)

    def _noting(self, fleet: str, pool: PoolName) -> Provider:
        return _Noting(self._make(fleet, pool), self._note)

    def _note(self, launch: Launch) -> None:
        self._asked.add((launch.fleet, launch.pool, launch.member_id))
        self._stop_s = launch.stop_s


class _Noting:
    """A provider as it is; each box that it is asked for is noted before."""

    def __init__(self, provider: Provider, note: Callable[[Launch], None]) -> None:
        self._provider = provider
        self._note = note
        self.boxes = provider.boxes
        self.remove = provider.remove
        self.watch = provider.watch
        self.aclose = provider.aclose

    async def create(self, launch: Launch) -> None:
        self._note(launch)
        await self._provider.create(launch)


def _words(e: EmpError) -> str:
    return f"{e.message} ({e.hint})" if e.hint else e.message
