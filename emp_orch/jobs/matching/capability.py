"""How a wanted value compares with a worker's capability. Values are JSON's; none of this ever raises on them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

MAX_SHOWN = 160

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 4
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 12
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 80


def shown(value: object) -> str:
    """`value` for an error or a reason, at most MAX_SHOWN characters of it, however large or deep it is."""
    try:
        text = _BRIEF.repr(value)
    except ValueError:  # Python spells out no number of more than 4,300 digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: object, other: object) -> bool:
    """Equal as JSON: 1 is 1.0, but not true, at any depth."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    return one == other


def _contains(found: object, item: object) -> bool:
    values = found if isinstance(found, list | tuple) else (found,)
    return any(same(item, value) for value in values)


def _single(wanted: object, found: object) -> bool:
    if isinstance(found, list | tuple):
        return _contains(found, wanted)
    if is_number(wanted):
        return is_number(found) and found >= wanted  # type: ignore[operator]  # both are numbers
    return same(wanted, found)


def holds(wanted: object, found: object) -> bool:
    """A wanted list: all of it is there. A number: at least that. Else equal, or contained in a list."""
    if isinstance(wanted, list | tuple):
        return all(_contains(found, item) for item in wanted)
    return _single(wanted, found)


def touches(unwanted: object, found: object) -> bool:
    """What `negative` rules out. An unwanted list: any of it is there. Else as `holds`."""
    if isinstance(unwanted, list | tuple):
        return any(_contains(found, item) for item in unwanted)
    return _single(unwanted, found)
