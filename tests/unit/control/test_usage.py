"""Which process counts for which program, what was used between two looks, and how a snapshot reads."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.cli.inspect.top import fitted, text
from emp_orch.control.status.usage import HERE, Look, by_use, use_between
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.procident import ProcessIdentity
from emp_orch.procuse import Measured, Process, Used, attributed

M = MachineId("m")
MIB = 1024**2


def process(pid: int, parent: int, *, group: int = 0, own_s: float = 1.0, ended_s: float = 0.0) -> Process:
    return Process(
        pid=pid, parent=parent, group=group or pid, start_ticks=pid * 10, own_s=own_s, ended_s=ended_s, memory=MIB
    )


def root(pid: int) -> ProcessIdentity:
    return ProcessIdentity(pid=pid, start_ticks=pid * 10)


def test_each_process_counts_for_one_program() -> None:
    table = [
        process(1, 0),
        process(10, 1, ended_s=100.0),  # supervisord, after a program of it ended
        process(20, 10, ended_s=2.0),
        process(21, 20, own_s=0.5),
        process(22, 21, group=22),  # in a group of its own
        process(30, 10),
        process(31, 1, group=30),  # left by its parent, still in the program's group
        process(40, 10),  # of supervisord, and of no program
        process(50, 1),
    ]
    roots = {root(10): "supervisord", root(20): "comfyui", root(30): "worker", root(50): "agent"}
    stranger = ProcessIdentity(pid=1, start_ticks=7)  # the pid is somebody else's now
    found = attributed({**roots, stranger: "gone"}, {p.pid: p for p in table})
    assert {n: (u.pid, u.processes, u.cpu_s, u.memory // MIB) for n, u in found.items()} == {
        "supervisord": (10, 2, 2.0, 2),
        "comfyui": (20, 3, 4.5, 3),
        "worker": (30, 2, 2.0, 2),
        "agent": (50, 1, 1.0, 1),
    }


def test_a_circle_of_parents_ends() -> None:
    assert attributed({}, {1: process(1, 2), 2: process(2, 1)}) == {}


def look(at_s: float, where: str = HERE, **programs: tuple[int, float]) -> Look:
    """A look at `at_s`; programs as (pid, CPU seconds so far)."""
    used = {n: Used(pid=pid, processes=1, cpu_s=cpu_s, memory=MIB) for n, (pid, cpu_s) in programs.items()}
    return Look(
        machine_id=M,
        where=where,
        at_s=at_s,
        cpu_s=sum(u.cpu_s for u in used.values()),
        memory=len(used) * MIB,
        limit=100 * MIB,
        measured=Measured(at_s=at_s, programs=used),
    )


def shares(use: Any) -> tuple[float | None, dict[str, float | None]]:
    return use.cpu, {p.name: p.cpu for p in use.programs}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(None, look(5, a=(1, 9.0)), (None, {"a": None}), id="nothing to compare with"),
        pytest.param(look(5, a=(1, 9.0)), look(7, a=(1, 10.0)), (50.0, {"a": 50.0}), id="half a core"),
        pytest.param(look(5, a=(1, 9.0)), look(7, a=(2, 1.0)), (50.0, {"a": 50.0}), id="started anew"),
        pytest.param(look(5), look(7, a=(1, 4.0)), (200.0, {"a": 200.0}), id="started"),
        pytest.param(
            look(5, a=(1, 9.0)), look(7, a=(1, 8.0)), (0.0, {"a": 0.0}), id="an ended child took its time along"
        ),
        pytest.param(look(5, a=(1, 9.0)), look(5, a=(1, 9.5)), (0.0, {"a": None}), id="no time passed"),
        pytest.param(
            look(5, "gpu-a", a=(1, 9.0)),
            structs.replace(look(7, "gpu-a", a=(1, 10.0)), cpu_s=11.0),
            (100.0, {"a": 50.0}),
            id="of a container as a whole the engine tells",
        ),
    ],
)
def test_what_was_used_between_two_looks(before: Look | None, now: Look, expected: tuple[Any, ...]) -> None:
    assert shares(use_between(before, now)) == expected


def test_the_table_sorted_and_honest() -> None:
    quiet = structs.replace(use_between(look(0, a=(1, 0.0)), look(2, a=(1, 0.0))), machine_id=MachineId("quiet"))
    loud = use_between(look(0, a=(1, 0.0), b=(2, 0.0)), look(2, a=(1, 0.1), b=(2, 3.0)))
    away = Look(machine_id=MachineId("away"), where="gpu-a", why="Docker host gpu-a does not answer\x1b[2J", away=True)
    uses = [use_between(None, away), quiet, loud]
    assert text(by_use(uses)).splitlines() == [
        "MACHINE  WHERE      CPU %  MEMORY   OF              PROCESSES",
        "m        this host  155.0  2.0 MiB  100.0 MiB (2%)  2",
        "  b      pid 2      150.0  1.0 MiB                  1",
        "  a      pid 1      5.0    1.0 MiB                  1",
        "quiet    this host  0.0    1.0 MiB  100.0 MiB (1%)  1",
        "  a      pid 1      0.0    1.0 MiB                  1",
        "away     gpu-a      -      -        -               -          Docker host gpu-a does not answer\\x1b[2J",
    ]
    assert [u.machine_id for u in by_use(uses, "name")] == ["away", "m", "quiet"]
    assert [u.machine_id for u in by_use(uses, "memory")] == ["m", "quiet", "away"]
    assert text([]) == "no machine: emp.yaml names none"


def test_what_does_not_fit_is_said() -> None:
    lines = [str(n) for n in range(10)]
    assert fitted(lines, 11) == lines
    assert fitted(lines, 5) == ["0", "1", "2", "… and 7 more lines: emp top MACHINE, or --once"]
