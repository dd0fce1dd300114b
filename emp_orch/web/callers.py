"""Who calls: tokens with a name, each with a role, and how often it may be used."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from emp_orch.roles import Role
from emp_orch.settings import Token
from emp_orch.web.errors import Refused
from emp_orch.web.rate import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """`values` are valid at once: the new one and, while it is handed out, the one before. `rate` None: no limit."""

    name: str
    role: Role
    values: tuple[bytes, ...] = field(repr=False)
    rate: Rate | None

    def spend(self) -> None:
        """Count one request. Raises Refused (429) when there were too many."""
        wait_s = 0.0 if self.rate is None else self.rate.take(time.monotonic())
        if wait_s > 0:
            raise Refused(
                429, f"the token {self.name} was used too often: wait", headers={"Retry-After": str(int(wait_s) + 1)}
            )

    def check(self, roles: frozenset[Role]) -> None:
        """Raises Refused (403) when none of `roles` is its own."""
        if self.role not in roles:
            needed = " or ".join(role for role in Role if role in roles)
            raise Refused(403, f"this needs a token whose role is {needed}; that of {self.name} is {self.role}")


def callers(tokens: Iterable[Token]) -> tuple[Caller, ...]:
    return tuple(
        Caller(
            name=t.name,
            role=t.role,
            values=tuple(v.encode() for v in t.values),
            rate=Rate(burst=t.rate_count, per_s=t.rate_count / t.rate_s) if t.rate_count else None,
        )
        for t in tokens
    )


def found(those: Iterable[Caller], given: bytes) -> Caller | None:
    """Whose token `given` is. Takes as long for any: each value is compared, in constant time."""
    match = None
    for caller in those:
        for value in caller.values:
            if hmac.compare_digest(given, value):
                match = caller
    return match
