"""What is wrong with the settings of a connector."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from emp_orch.errors import EmpError

CONNECTOR = "connector_options of the {} connector"


class CannotLoad(EmpError):
    """A connector that cannot be made: its kind is unknown, its package broken, or its settings wrong."""


class WrongOption(CannotLoad):
    """`name` is where: `tidy.keep`; empty for all of them. `what` is wrong there, of the value `found`, if any.

    Who shows it to others than the one who wrote the file looks first whether the value is a secret.
    """

    def __init__(
        self, kind: str, name: str, what: str, hint: str = "", *, found: Any = None, what_of: str = CONNECTOR
    ) -> None:
        self.name, self.what, self.found = name, what, found
        told = "" if found is None else f", found {found!r}"
        where = f"{name} " if name else ""
        super().__init__(f"{what_of.format(kind)}: {where}{what}{told}", hint=hint)


def no_options(kind: str, options: Mapping[str, Any]) -> None:
    """For a connector without settings. Raises WrongOption when there are any."""
    if options:
        raise WrongOption(kind, next(iter(options)), "is unknown: it takes no options", "remove it")


def only(
    kind: str, options: Mapping[str, Any], known: Collection[str], *, where: str = "", what_of: str = CONNECTOR
) -> None:
    """Raises WrongOption for a name that is none of `known`; `where` stands before it."""
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"there are: {', '.join(known)}"
            raise WrongOption(kind, f"{where}{name}", "is unknown", hint, what_of=what_of)
