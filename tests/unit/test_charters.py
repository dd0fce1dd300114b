"""A stranger who opens a folder of emp reads what it is for; which of its parts may call which, a contract holds."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PACKAGES = sorted(p.parent for p in (TOP / "emp_orch").rglob("__init__.py"))
# The shortest that says anything.
LEAST_CHARS = 40


def name_of(package: Path) -> str:
    return ".".join(package.relative_to(TOP).parts)


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_every_folder_says_what_it_is_for(package: Path) -> None:
    charter = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    assert len(charter) >= LEAST_CHARS


def test_a_room_of_rooms_has_a_contract_that_leaves_no_part_out() -> None:
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = {
        name for c in contracts if c["type"] == "layers" and c.get("exhaustive") for name in c.get("containers", ())
    }
    rooms = [p for p in PACKAGES if sum(child.parent == p for child in PACKAGES) > 1 and p.name != "emp_orch"]
    assert {name_of(p) for p in rooms} <= held
