"""A client all of whose commands go over one line: a worker's, which has but one more, to block on."""

from __future__ import annotations

import inspect
from typing import Any

import redis.asyncio as aioredis

from emp_orch.store.redis.client import Client
from emp_orch.store.redis.pipelined import Pipelined


class OneLine(aioredis.Redis):
    """As the client it is made of, for what does not block and does not listen."""

    def __init__(self, r: Client, line: Pipelined) -> None:
        super().__init__(connection_pool=r.connection_pool)
        self._line = line

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return await self._parsed(args[0], await self._line.call(*_words(args)), options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> aioredis.client.Pipeline:
        return _Together(self, transaction)

    async def together(self, commands: list[tuple[Any, Any]], transaction: bool) -> list[Any]:
        """The answers to `commands`, each with its options. Raises the first error."""
        asked = [_words(args) for args, _ in commands]
        if transaction:
            *_, answers = await self._line.calls(("MULTI",), *asked, ("EXEC",))
        else:
            answers = await self._line.calls(*asked)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        pairs = zip(commands, answers, strict=True)
        return [await self._parsed(args[0], answer, dict(options)) for (args, options), answer in pairs]

    async def _parsed(self, name: Any, answer: Any, options: dict[str, Any]) -> Any:
        options.pop("keys", None)  # of redis-py's cache
        found = self.response_callbacks.get(name)
        value = found(answer, **options) if found else answer
        return await value if inspect.isawaitable(value) else value


class _Together(aioredis.client.Pipeline):
    """Its commands go out in one write, and wait for nobody else's."""

    def __init__(self, r: OneLine, transaction: bool) -> None:
        super().__init__(r.connection_pool, r.response_callbacks, transaction, None)
        self._one_line = r

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self.command_stack = self.command_stack, []
        return await self._one_line.together(commands, self.is_transaction) if commands else []


def _words(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """`("PUBSUB NUMSUB", …)` is two words."""
    return (*str(args[0]).split(), *args[1:])
