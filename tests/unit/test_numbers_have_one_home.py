"""A number has one home: no two modules define one constant, and no default of the schema is written a second time."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import emp_orch
from emp_orch.builds import IN_SUPERVISORD
from emp_orch.fleet.model import defaults, fleet
from emp_orch.manifest import schema_reader
from emp_orch.units import seconds, size

PACKAGE = Path(emp_orch.__file__).parent
# Words that say what sort of a number it is; of what, their module says. A number that two modules need has a name of
# its own, and is none of these.
OF_ITS_MODULE = frozenset(
    {
        *("AGAIN_S", "ANSWER_S", "ASK_S", "AT_ONCE", "AWAY_S", "BATCH", "BLOCK_MS", "CHECK_S", "CHUNK", "CLOSE_S"),
        *("EVERY_MS", "EVERY_S", "FIRST_PAUSE_S", "GATHER_S", "GRACE_S", "HEARTBEAT_S", "INTERVAL_S", "KEPT"),
        *("LOOK_S", "MAX_ANSWER_BYTES", "MAX_BODY_BYTES", "MAX_BYTES", "MAX_DEPTH", "MAX_DETAIL_BYTES", "MAX_DIGITS"),
        *("MAX_ENTRIES", "MAX_FILES", "MAX_FOLDERS", "MAX_KEPT", "MAX_LIMIT", "MAX_LINE", "MAX_LINES"),
        *("MAX_MESSAGE_BYTES", "MAX_NAMED", "MAX_NAME_BYTES", "MAX_PATH", "MAX_PAUSE_S", "MAX_PROBLEMS"),
        *("MAX_REASON", "MAX_SHOWN", "MAX_TOLD", "MAX_WAIT_S", "OFFERED", "PATIENCE_S", "PAUSE_S", "PING_S", "POLL_S"),
        *("RETRY_S", "ROUNDS", "SETTLE_S", "SHOWN", "TOLD_S", "WAIT_S", "WINDOW"),
    }
)


def _is_number(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.UnaryOp(operand=operand):
            return _is_number(operand)
        case ast.BinOp(left=left, right=right):
            return _is_number(left) and _is_number(right)
    return False


def _named(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Each name that a statement of a module gives a value, and that."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            yield from ((n.id, v) for n, v in zip(names, values, strict=True) if isinstance(n, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value


def numbers(text: str) -> set[str]:
    """The constants of a module that are a literal number; those that it keeps to itself (`_NAME`) are its own."""
    found = (named for statement in ast.parse(text).body for named in _named(statement))
    return {name for name, value in found if not name.startswith("_") and _is_number(value)}


@pytest.fixture(scope="module")
def homes() -> dict[str, list[str]]:
    """Every constant that is a number: the modules that define it."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in numbers(path.read_text()):
            found.setdefault(name, []).append(path.relative_to(PACKAGE).as_posix())
    return found


def test_no_two_modules_define_one_number(homes: dict[str, list[str]]) -> None:
    twice = {name: at for name, at in homes.items() if len(at) > 1 and name not in OF_ITS_MODULE}
    # What runs inside a supervisord is changed for a reason only: it starts every machine anew.
    assert {name: at for name, at in twice.items() if len({*at} - {*IN_SUPERVISORD}) > 1} == {}


def test_the_words_that_are_excepted_are_needed(homes: dict[str, list[str]]) -> None:
    assert sorted(name for name in OF_ITS_MODULE if len(homes.get(name, ())) < 2) == []


def test_the_search_sees_them_all() -> None:
    text = "A = 1\nB: float = -2.5\nC, D = 3, 64 * 1024\nE = 'x'\nF = True\n_G = 4\ndef f():\n    H = 5\nI = A\n"
    assert numbers(text) == {"A", "B", "C", "D"}


# -- the schema's defaults

# What stands in the model for generations of earlier versions, which do not say; and its place in the schema.
IN_THE_MODEL = {
    ("Limits", "pids"): ("machines", "*", "limits", "pids"),
    ("ReconcileSpec", "stuck_after_s"): ("reconcile", "stuck_after"),
}
# An earlier version had no such thing: that is what it means, whatever a new file gets.
NOTHING_THEN = {
    *(("Service", "discover_s"), ("RedisSpec", "replicas")),
    # A member is in no file: it has not joined, and is not to go.
    *(("Member", "joined_ms"), ("Member", "leaving_ms"), ("Member", "life")),
}


def _default(*names: str) -> float:
    return _number(schema_reader.sub(*names)["default"])


def _number(value: Any) -> float:
    if not isinstance(value, str):
        return float(value)
    try:
        return seconds(value)
    except ValueError:
        found = size(value)
        assert found is not None
        return float(found)


def test_defaults_without_a_file_are_those_of_the_schema() -> None:
    assert {name: value for name, value in vars(defaults).items() if name.isupper()} == {
        "RECONCILE_INTERVAL_S": _default("reconcile", "interval"),
        "STALE_AFTER_S": _default("reconcile", "stale_after"),
        "STUCK_AFTER_S": _default("reconcile", "stuck_after"),
        "PIDS": _default("machines", "*", "limits", "pids"),
    }


def test_the_model_has_no_other_default() -> None:
    """A number that a user may set comes from the file, which the schema filled."""
    found = {
        (name, field.name): field.default
        for name, kind in inspect.getmembers(fleet, inspect.isclass)
        if issubclass(kind, msgspec.Struct)
        for field in msgspec.structs.fields(kind)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert {at: n for at, n in found.items() if at in NOTHING_THEN} == dict.fromkeys(NOTHING_THEN, 0)
    assert {at: n for at, n in found.items() if at not in NOTHING_THEN} == {
        at: _default(*names) for at, names in IN_THE_MODEL.items()
    }


def _written_again(text: str) -> list[str]:
    """Each `x.get("name", 5)`: a default beside the schema's."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        if len(node.args) == 2 and _is_number(node.args[1])
    ]


def test_what_reads_the_file_gives_no_default() -> None:
    assert _written_again('a.get("port", 3331); a.get("x", ""); a.get("y")') == ["a.get('port', 3331)"]
    for path in sorted((PACKAGE / "manifest").rglob("*.py")):
        assert _written_again(path.read_text()) == [], path
