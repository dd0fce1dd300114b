"""What a runtime is like is asked of its traits: no other module names a kind, or compares one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import emp_orch
from emp_orch.fleet.model.runtimes import RuntimeKind, traits_of

PACKAGE = Path(emp_orch.__file__).parent
KIND = RuntimeKind.__name__
# What is known by kind: the facts, what starts the machines of each, and the word in emp.yaml.
BY_KIND = ("fleet/model/runtimes.py", "manifest/build.py", "runtimes/__init__.py")


def _is_kind(node: ast.expr) -> bool:
    """`RuntimeKind`, by itself or as a module's."""
    return (isinstance(node, ast.Name) and node.id == KIND) or (isinstance(node, ast.Attribute) and node.attr == KIND)


def _is_runtime(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "runtime"


def _words(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def _names_one(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(value=value) | ast.Subscript(value=value, ctx=ast.Load()):
            # As the type of a mapping's keys it stands inside the brackets.
            return _is_kind(value)
        case ast.Call(func=func):
            return _is_kind(func)
        case ast.ImportFrom(names=names):
            return any(n.name == KIND and n.asname is not None for n in names)
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
            return any(_is_runtime(s) for s in sides) and any(w in set(RuntimeKind) for s in sides for w in _words(s))
        case ast.Match(subject=subject, cases=cases):
            return _is_runtime(subject) and any(w in set(RuntimeKind) for c in cases for w in _words(c.pattern))
    return False


def named(text: str) -> list[str]:
    """Each place of a module that names a kind of runtime."""
    found = (node for node in ast.walk(ast.parse(text)) if _names_one(node))
    return [ast.unparse(node).splitlines()[0] for node in found]


def test_only_these_modules_name_a_kind() -> None:
    modules = {p.relative_to(PACKAGE).as_posix(): named(p.read_text()) for p in sorted(PACKAGE.rglob("*.py"))}
    naming = {module: places for module, places in modules.items() if places}
    others = {module: places for module, places in naming.items() if module not in BY_KIND}
    assert others == {}, "ask machine.traits, or traits_of(kind): fleet/model/runtimes.py"
    assert sorted(naming) == sorted(BY_KIND)


@pytest.mark.parametrize(
    "text",
    [
        "if machine.runtime is RuntimeKind.PROCESS: ...",
        "found = [m for m in machines if m.runtime in (RuntimeKind.PROCESS, RuntimeKind.COMPOSE)]",
        "UNSEEN = frozenset({runtimes.RuntimeKind.EXTERNAL})",
        "if m.runtime is RuntimeKind('process'): ...",
        "if m.runtime is RuntimeKind['PROCESS']: ...",
        "from emp_orch.fleet.model.runtimes import RuntimeKind as K",
        "if m.runtime == 'external': ...",
        "if m.runtime in ('process', 'compose'): ...",
        "match m.runtime:\n    case RuntimeKind.PROCESS: ...",
        "match m.runtime:\n    case 'process': ...",
    ],
)
def test_one_more_would_be_found(text: str) -> None:
    assert named(text)


@pytest.mark.parametrize(
    "text",
    [
        "from emp_orch.fleet.model.runtimes import RuntimeKind",
        "def f(runtimes: Mapping[RuntimeKind, Runtime], kind: RuntimeKind) -> None: ...",
        "if kind is machine.runtime or machine.runtime in observed.answered: ...",
        "if fleet.control.runtime is ControlRuntime.PROCESS: ...",
        "if machine.traits.shares_host: ...",
    ],
)
def test_what_names_none_is_let_be(text: str) -> None:
    assert named(text) == []


@pytest.mark.parametrize("kind", RuntimeKind)
def test_the_facts_of_a_kind_go_together(kind: RuntimeKind) -> None:
    traits = traits_of(kind)
    assert not (traits.shares_host and traits.in_container), "a container has a network of its own"
    assert not (traits.joins and traits.shares_host), "who joins is elsewhere"
    assert traits.seen or not traits.started, "what emp starts, it must be able to see"
