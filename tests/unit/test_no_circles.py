"""No module of emp leads back to itself: neither by its imports at the top, nor by those in functions or for types."""

from __future__ import annotations

import pytest
from grimp import ImportGraph, build_graph


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    return build_graph("emp_orch", cache_dir=None, exclude_type_checking_imports=False)


def circles(graph: ImportGraph) -> list[list[str]]:
    """The modules of which each leads to every other of its list: strongly connected parts, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            at = stack.index(module)
            part = stack[at:]
            del stack[at:]
            if len(part) > 1:
                found.append(sorted(part))

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return found


def test_no_modules_import_each_other_in_a_circle(graph: ImportGraph) -> None:
    assert circles(graph) == []


def test_a_circle_would_be_found() -> None:
    graph = ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [["a", "b", "c"]]


def test_imports_in_functions_and_for_types_count(graph: ImportGraph) -> None:
    in_a_function = graph.find_modules_directly_imported_by("emp_orch.cli.jobs.submit")
    for_types = graph.find_modules_directly_imported_by("emp_orch.control.doctor.model")
    assert "emp_orch.cli.jobs.batch" in in_a_function
    assert "emp_orch.control.doctor.facts.gather" in for_types
