"""A plan in a file: what makes it void, and what is no plan at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from emp_orch.control.apply import planfile
from emp_orch.control.apply.planfile import PlanFile, moved
from emp_orch.errors import EmpError, Exit, UsageError

MADE = PlanFile(
    fleet="f",
    file="emp.yaml",
    file_digest="t1",
    base_generation=3,
    digest="d1",
    observed_digest="o1",
    prune=False,
    allow_empty=False,
    plan=("fleet f: generation 3 → 4", "  ~ m  (in place): num_gpus 1 → 2"),
    made_at="2026-01-01T00:00:00.000Z",
)
EDITED = "emp.yaml was edited"
FOLLOWS = "generation 4 is in force; the plan follows generation 3"
RUNS = "what runs is no longer as it was: a machine was started, stopped or restarted, or drift came or went"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"made_at": "2026-01-02T00:00:00.000Z"}, [], id="time passes"),
        pytest.param({"file_digest": "t2", "digest": "d2"}, [EDITED], id="another fleet in the file"),
        pytest.param({"file_digest": "t2"}, [EDITED], id="only a comment"),
        pytest.param(
            {"digest": "d2"},
            ["emp.yaml is the same, but .env or the environment gives it other values"],
            id="the environment",
        ),
        pytest.param({"base_generation": 4, "plan": ("fleet f: generation 4 → 5",)}, [FOLLOWS], id="another apply"),
        pytest.param({"observed_digest": "o2"}, [RUNS], id="what runs"),
        pytest.param(
            {"file_digest": "t2", "base_generation": 4, "observed_digest": "o2"}, [EDITED, FOLLOWS, RUNS], id="all"
        ),
        pytest.param(
            {"plan": (*MADE.plan, "  ~ secret env:TOKEN has another value")},
            ["the same file would now do something else: settings, secrets or the control plane are not as they were"],
            id="a secret",
        ),
        pytest.param(
            {"fleet": "g"}, ["the plan is for emp.yaml of fleet f, not for emp.yaml of fleet g"], id="another fleet"
        ),
    ],
)
def test_what_moved(now: dict[str, Any], expected: list[str]) -> None:
    assert list(moved(MADE, structs.replace(MADE, **now))) == expected


def test_a_moved_plan_is_refused_with_all_that_moved_and_the_way_out() -> None:
    planfile.refuse_moved(MADE, MADE, Path("p.json"))
    pruning = structs.replace(MADE, file="b.yaml", prune=True)
    with pytest.raises(EmpError) as refused:
        planfile.refuse_moved(pruning, structs.replace(pruning, base_generation=4, file_digest="t2"), Path("p.json"))
    assert refused.value.exit_code is Exit.FAILED
    assert "p.json no longer holds; nothing was changed" in refused.value.message
    assert FOLLOWS in refused.value.message and "b.yaml was edited" in refused.value.message
    assert refused.value.hint == "look again: emp diff b.yaml --prune --plan-out p.json"


def test_a_plan_comes_back_as_it_was_written_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text("of before")
    file.chmod(0o644)
    planfile.write(file, MADE)
    assert planfile.read(file) == MADE
    assert file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]
    with pytest.raises(EmpError, match="cannot write"):
        planfile.write(tmp_path / "nowhere" / "p.json", MADE)


def _document(**changes: Any) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(MADE), **changes})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"version: 1\n", id="YAML"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(_document(version=2), id="another version"),
        pytest.param(_document(base_generation="3"), id="another type"),
        pytest.param(_document(more=1), id="an unknown key"),
        pytest.param(_document(file="../emp.yaml"), id="a path"),
        pytest.param(_document()[:-5], id="cut"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(text)
    with pytest.raises(UsageError, match="is no plan"):
        planfile.read(file)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        planfile.read(tmp_path / "p.json")
