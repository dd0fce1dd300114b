"""The settings of a pool's provider by its name: emp's own, and what other packages say of theirs.

Those say it by an entry point of `emp.provider_options`: a function of the options that raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emp_orch.fleet.model.fleet import SecretRef
from emp_orch.fleet.model.pools import JOIN
from emp_orch.options import provider_command, provider_slurm, provider_swarm
from emp_orch.options.base import CannotLoad, WrongOption

GROUP = "emp.provider_options"


def _join(options: Mapping[str, Any]) -> None:
    if options:
        raise WrongOption(JOIN, next(iter(options)), "is unknown: it takes no options", "remove it", what_of=WHAT_OF)


WHAT_OF = "provider_options of the {} provider"
_BUILTIN: dict[str, Callable[[Mapping[str, Any]], object]] = {
    JOIN: _join,
    provider_command.COMMAND: provider_command.options_of,
    provider_slurm.SLURM: provider_slurm.options_of,
    provider_swarm.SWARM: provider_swarm.options_of,
}


def names() -> tuple[str, ...]:
    """The providers that come with emp."""
    return tuple(_BUILTIN)


def host_of(kind: str, options: Mapping[str, Any]) -> str:
    """The Docker host that the provider asks, of options that were checked; empty for one that asks none."""
    return provider_swarm.options_of(options).host if kind == provider_swarm.SWARM else ""


def references(kind: str, options: Mapping[str, Any]) -> tuple[tuple[str, SecretRef], ...]:
    """The secrets that options refer to, which were checked, each with where it stands in them."""
    if kind != provider_command.COMMAND:
        return ()
    return tuple((f"env.{name}", ref) for name, ref in provider_command.options_of(options).refs)


def check(kind: str, options: Mapping[str, Any]) -> None:
    """Raises WrongOption. What nobody here knows how to judge is judged where the provider is used."""
    if (own := _BUILTIN.get(kind)) is not None:
        own(options)
        return
    rule = _theirs(kind)
    if not callable(rule):
        return
    try:
        rule(dict(options))
    except WrongOption:
        raise
    except CannotLoad as e:
        raise WrongOption(kind, "", e.message, e.hint, what_of=WHAT_OF) from e
    except ValueError as e:
        raise WrongOption(kind, "", str(e) or "is wrong", what_of=WHAT_OF) from e
    except Exception:  # noqa: BLE001  # another's code: whoever uses the provider tells of it
        return


def _theirs(kind: str) -> Any:
    """What one package says; None where none does, or one is broken."""
    from importlib.metadata import entry_points

    try:
        found = list(entry_points(group=GROUP).select(name=kind))
        return found[0].load() if len(found) == 1 else None
    except (Exception, SystemExit):  # noqa: BLE001  # another's code, and its files
        return None
