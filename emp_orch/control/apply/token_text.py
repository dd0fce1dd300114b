"""What an apply changes about who is let in, in lines for a person: names and roles, never a value."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.settings import Settings, Token

_UNITS = {1.0: "s", 60.0: "m", 3600.0: "h"}


def token_lines(before: Settings, now: Settings) -> Iterator[str]:
    for name, old, new in (("api", before.api, now.api), ("monitor", before.monitor, now.monitor)):
        if old.token != new.token:
            yield _one(f"{name}.token", old.token is not None, new.token is not None)
        if old.role is not new.role:
            yield f"~ {name}.role {old.role} → {new.role}"
    was, becomes = ({t.name: t for t in settings.api.tokens} for settings in (before, now))
    for name in sorted(was.keys() | becomes.keys()):
        where = f"api.tokens.{name}"
        if name not in becomes:
            yield f"- {where}: nobody is let in by it any more"
        elif name not in was:
            yield f"+ {where}: {becomes[name].role}{_rate(becomes[name])}"
        elif was[name] != becomes[name]:
            yield f"~ {where}: {', '.join(_changes(was[name], becomes[name]))}"


def _one(where: str, was: bool, becomes: bool) -> str:
    if was and becomes:
        return f"~ {where} has another value"
    return f"+ {where}: needed from now on" if becomes else f"- {where}: none is needed any more"


def _changes(old: Token, new: Token) -> Iterator[str]:
    if old.role is not new.role:
        yield f"role {old.role} → {new.role}"
    if (old.rate_count, old.rate_s) != (new.rate_count, new.rate_s):
        yield f"rate {_rate(new)[2:] or 'without limit'}"
    if set(new.values) - set(old.values):
        yield "a new value"
    if gone := set(old.values) - set(new.values):
        yield f"{len(gone)} former {'value is' if len(gone) == 1 else 'values are'} let in no more"
    if set(old.values) == set(new.values) and old.values != new.values:
        yield "its values in another order"


def _rate(token: Token) -> str:
    return f", {token.rate_count}/{_UNITS[token.rate_s]}" if token.rate_count else ""
