"""The provider `command`: asks the user's program, as the user that the control plane runs as."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from emp_orch.environments import of_role
from emp_orch.fleet.model.fleet import MachineId, SecretRef
from emp_orch.fleet.model.pools import Box
from emp_orch.layout import Layout
from emp_orch.options.provider_command import options_of
from emp_orch.runtimes.compose.folder import folder_digest
from emp_orch.runtimes.last_words import redacted
from emp_orch.runtimes.providers.base import Launch, Making, ProviderError
from emp_orch.runtimes.providers.command import documents
from emp_orch.runtimes.providers.command.documents import MAX_LISTING_BYTES, Owner, Request
from emp_orch.runtimes.providers.command.run import Program, answer_of
from emp_orch.settings import held_secrets

# A look at a pool waits no longer for its engine than a little more than this.
LIST_S = 25.0
_MAX_DONE = 64 * 1024


class CommandProvider:
    """One pool's boxes. Requests about one member come one after the other, others at once; lists one at a time."""

    def __init__(self, making: Making) -> None:
        self._options = options_of(making.options)
        self._layout = Layout(Path(making.folder).parent)
        self._owner = Owner(fleet=making.fleet, pool=making.pool, folder=folder_digest(self._layout))
        # A lock is there as long as somebody holds it or waits for it.
        self._members: WeakValueDictionary[MachineId, asyncio.Lock] = WeakValueDictionary()
        self._listing = asyncio.Lock()
        self._held: dict[str, str] = {}
        # Grows with each word that may make the list another.
        self._words = 0
        self._last: tuple[int, float, tuple[Box, ...] | ProviderError] | None = None

    async def boxes(self) -> tuple[Box, ...]:
        """As of the last list, if that is young and nothing was asked for since."""
        async with self._listing:
            if self._last is None or self._last[0] != self._words or self._age_s() >= self._options.every_s:
                words = self._words
                try:
                    seen: tuple[Box, ...] | ProviderError = await self._listed()
                except ProviderError as e:
                    seen = e
                self._last = (words, time.monotonic(), seen)
            found = self._last[2]
        if isinstance(found, ProviderError):
            raise type(found)(found.message, hint=found.hint)
        return found

    async def create(self, launch: Launch) -> None:
        document = documents.creation(self._owner, launch)
        await self._told(Request.CREATE, launch.member_id, document, hidden=(launch.token,))

    async def remove(self, member_id: MachineId, *, stop_s: float) -> None:
        await self._told(Request.REMOVE, member_id, documents.removal(self._owner, member_id, stop_s))

    async def watch(self, changed: Callable[[], None]) -> None:  # a program tells nothing by itself
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        return

    def _age_s(self) -> float:
        return time.monotonic() - self._last[1] if self._last is not None else float("inf")

    async def _listed(self) -> tuple[Box, ...]:
        program = self._program()
        within_s = min(self._options.timeout_s, LIST_S)
        document = documents.listing(self._owner)
        answer = await answer_of(program, Request.LIST, document, within_s=within_s, most=MAX_LISTING_BYTES)
        hide = partial(redacted, secrets=program.secrets)
        with _named(program, Request.LIST):
            return documents.boxes_in(answer, self._owner, hide)

    async def _told(
        self, request: Request, member_id: MachineId, document: bytes, hidden: tuple[str, ...] = ()
    ) -> None:
        async with self._members.setdefault(member_id, asyncio.Lock()):
            program = self._program(hidden)
            try:
                answer = await answer_of(program, request, document, within_s=self._options.timeout_s, most=_MAX_DONE)
            finally:
                self._words += 1
            with _named(program, request):
                documents.done_in(answer)

    def _program(self, hidden: tuple[str, ...] = ()) -> Program:
        values = {name: self._secret(ref) for name, ref in self._options.refs}
        plain = {name: value for name, value in self._options.env.items() if isinstance(value, str)}
        return Program(
            command=self._options.command,
            cwd=self._layout.root,
            environ={**of_role("reconcile", os.environ), **plain, **values},
            secrets=(*values.values(), *hidden),
        )

    def _secret(self, ref: SecretRef) -> str:
        """As the last apply resolved it. One that emp.yaml names no more is remembered: boxes are still to go."""
        named = {r.key for _, r in self._options.refs}
        self._held |= {key: value for key, value in held_secrets(self._layout).items() if key in named}
        try:
            return self._held[ref.key]
        except KeyError:
            hint = (
                "run `emp apply`; of a pool that emp.yaml names no more: name it again with size 0, until it is empty"
            )
            raise ProviderError(f"the secret {ref.key} of {self._owner.pool} has no value", hint=hint) from None


@contextmanager
def _named(program: Program, request: Request) -> Iterator[None]:
    """What is wrong with an answer, with whose it is, and without secrets."""
    try:
        yield
    except ProviderError as e:
        raise ProviderError(
            redacted(f"{program.name} at {request}: {e.message}", program.secrets), hint=e.hint
        ) from None
