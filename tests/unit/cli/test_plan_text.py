"""What an apply would do, line by line as a person reads it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.control.apply.plan_text import plan_lines
from emp_orch.control.checks.proposed import Preview, Proposal
from emp_orch.fleet.desired.inherits import InheritChange
from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.plan.operations import Effect, MachineChange
from emp_orch.settings import Listen, Settings
from support.fleet.fleets import COMFYUI, SIMULATION, fleet, machine

LISTEN = Listen(host="127.0.0.1", port=1)
PROPOSAL = Proposal(
    fleet=fleet([SIMULATION, COMFYUI], machine("m")),
    settings=Settings(
        fleet="f",
        redis_url="redis://localhost",
        machine_redis_url="redis://localhost",
        embedded=True,
        redis_port=1,
        prefix="",
        artifacts="file:///a",
        api=LISTEN,
        monitor=LISTEN,
    ),
    secrets={"env:TOKEN": "of-no-interest"},
    source="emp.yaml",
    why="apply emp.yaml",
)


def _seen(**changes: Any) -> Preview:
    fields: dict[str, Any] = {
        "number": 3,
        "same": False,
        "changes": (),
        "plane_runs": True,
        "settings_change": False,
        "running": None,
        "rotated": (),
    }
    return Preview(**{**fields, **changes})


def _change(**changes: Any) -> MachineChange:
    fields = {"machine_id": MachineId("m"), "effect": Effect.IN_PLACE, "why": "why", "origin": "emp.yaml:9:3"}
    return MachineChange(**{**fields, **changes})


def _names(*names: str) -> tuple[ProgramName, ...]:
    return tuple(map(ProgramName, names))


HEAD = "fleet f: generation 3 → 4"
MANY = _names(*(f"comfyui-gpu{n}" for n in range(2, 64)), "redis-worker-gpu2", "redis-worker-gpu3", "simulation")
INHERITS = (
    InheritChange(programs=_names("s-gpu0", "s-gpu1", "s-gpu2"), more=("A", "B"), less=("C",)),
    InheritChange(programs=_names("t"), more=("A",), less=()),
)
ODD = _names("a01", "a02", "a03", "b9", "b10", "b11", "1", "2", "3", "c1", "c3")


@pytest.mark.parametrize(
    ("source", "seen", "expected"),
    [
        pytest.param("emp.yaml", _seen(), [HEAD, "  nothing changes on any machine"], id="only the number"),
        pytest.param(
            "emp.yaml", _seen(same=True), ["fleet f: generation 3 → 3", "  nothing changes on any machine"], id="same"
        ),
        pytest.param(
            "emp.yaml",
            _seen(plane_runs=False),
            [HEAD, "  + control plane  (start): Redis, API, monitor, reconciler, event log"],
            id="all down",
        ),
        pytest.param(
            "emp.yaml",
            _seen(changes=(_change(added=MANY, kept=_names("x", "y")),)),
            [
                HEAD,
                "  ~ m  (in place): why  [emp.yaml:9:3]",
                "      + comfyui-gpu2…63, redis-worker-gpu2, redis-worker-gpu3, simulation",
                "      = 2 programs run on untouched",
            ],
            id="many slots",
        ),
        pytest.param(
            "emp.yaml",
            _seen(changes=(_change(removed=ODD),)),
            [HEAD, "  ~ m  (in place): why  [emp.yaml:9:3]", "      - a01, a02, a03, b9…11, 1…3, c1, c3"],
            id="only what counts up",
        ),
        pytest.param(
            "generation 2",
            _seen(changes=(_change(), _change(effect=Effect.REMOVE, origin=""))),
            [HEAD, "  ~ m  (in place): why  [emp.yaml:9:3 of generation 2]", "  - m  (remove): why"],
            id="lines of another generation are no lines of the file",
        ),
        pytest.param(
            "emp.yaml",
            _seen(rotated=("env:TOKEN",)),
            [HEAD, "  ~ secret env:TOKEN has another value: programs get it when they start again (emp restart)"],
            id="a secret",
        ),
        pytest.param(
            "emp.yaml",
            _seen(rotated=("env:HF_HOME",)),
            [HEAD, "  ~ env:HF_HOME is not set any more: programs run without it when they start again (emp restart)"],
            id="what was inherited",
        ),
        pytest.param(
            "emp.yaml",
            _seen(changes=(_change(changed=_names("s-gpu0", "s-gpu1", "s-gpu2", "t"), inherits=INHERITS),)),
            [
                HEAD,
                "  ~ m  (in place): why  [emp.yaml:9:3]",
                "      ↻ s-gpu0…2, t",
                "      ~ s-gpu0…2 inherit A, B and no longer inherit C",
                "      ~ t inherits A",
            ],
            id="who inherits what",
        ),
    ],
)
def test_the_plan_in_lines(source: str, seen: Preview, expected: list[str]) -> None:
    assert plan_lines(structs.replace(PROPOSAL, source=source), seen) == expected
