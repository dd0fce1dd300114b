"""The start-up sequence as data, and when a program counts as up or failed."""

from __future__ import annotations

import pytest

from emp_orch.fleet.desired.startup import has_failed, is_up, phases, side_by_side
from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram
from emp_orch.fleet.model.fleet import ProgramName, Scale, Service
from emp_orch.fleet.model.observed import ProgramReport, ProgramState
from support.fleet.fleets import COMFYUI, SETUP, SIMULATION, install, one, service

TOOL = service("tool", install=install("get", "tool"), depends_on=("comfyui",))

FILL = service("fill", scale=Scale.ONCE, install=install("get"), depends_on=("comfyui",))


def text(machine: DesiredMachine) -> str:
    return "\n".join(f"{p.step}: {' '.join(q.name for q in p.programs)}".rstrip() for p in phases(machine))


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (
            one([SIMULATION, COMFYUI], num_gpus=2),
            "shared_setup_starting: shared-setup\n"
            "simulation_install_starting: simulation-installer\n"
            "comfyui_install_starting: comfyui-installer\n"
            "simulation_services_starting: simulation\n"
            "comfyui_services_starting: comfyui-gpu0 comfyui-gpu1\n"
            "workers_starting: redis-worker-gpu0 redis-worker-gpu1",
        ),
        (
            one([COMFYUI], num_gpus=0),
            "shared_setup_starting: shared-setup\ncomfyui_install_starting: comfyui-installer\nworkers_starting:",
        ),
        (one([], num_gpus=0), "shared_setup_starting: shared-setup\nworkers_starting:"),
        (
            one([TOOL, SETUP, COMFYUI]),
            "shared_setup_starting: shared-setup\n"
            "comfyui_install_starting: comfyui-installer\n"
            "tool_install_starting: tool-installer\n"
            "comfyui_services_starting: comfyui-gpu0\n"
            "tool_services_starting: tool\n"
            "prepare_install_starting: prepare\n"
            "workers_starting: redis-worker-gpu0",
        ),
        (
            one([FILL, COMFYUI]),
            "shared_setup_starting: shared-setup\n"
            "comfyui_install_starting: comfyui-installer\n"
            "fill_install_starting: fill-installer\n"
            "comfyui_services_starting: comfyui-gpu0\n"
            "fill_install_starting: fill\n"
            "workers_starting: redis-worker-gpu0",
        ),
    ],
)
def test_phases_in_order(machine: DesiredMachine, expected: str) -> None:
    assert text(machine) == expected


def test_services_begin_together_and_what_they_wait_for_before_them() -> None:
    def steps(services: list[Service]) -> list[list[str]]:
        return [[phase.step for phase in together] for together in side_by_side(one(services, num_gpus=2))]

    assert steps([SIMULATION, COMFYUI]) == [
        ["shared_setup_starting"],
        ["simulation_install_starting"],
        ["comfyui_install_starting"],
        ["simulation_services_starting", "comfyui_services_starting"],
        ["workers_starting"],
    ]
    # A step that runs once between two services is awaited before the second.
    assert steps([FILL, COMFYUI])[-3:] == [
        ["comfyui_services_starting"],
        ["fill_install_starting"],
        ["workers_starting"],
    ]
    assert steps([])[-1] == ["workers_starting"]


@pytest.mark.parametrize("services", [[SIMULATION, COMFYUI], [TOOL, SETUP, COMFYUI], [FILL, COMFYUI]])
def test_no_program_waits_for_a_later_phase(services: list[Service]) -> None:
    """Else the sequence would wait for ever: a phase begins when the one before has settled."""
    begun: set[str] = set()
    for phase in phases(one(services, num_gpus=2)):
        begun |= {p.name for p in phase.programs}
        assert all(begun.issuperset(p.after) for p in phase.programs)


M = one([SIMULATION, COMFYUI])


def program(name: str) -> DesiredProgram:
    found = M.program(ProgramName(name))
    assert found is not None
    return found


STEP, CHECKED, PLAIN = program("comfyui-installer"), program("comfyui-gpu0"), program("simulation")
S = ProgramState
UP, FAILED, WAIT = "up", "failed", "wait"


@pytest.mark.parametrize(
    ("want", "state", "exit_status", "healthy", "expected"),
    [
        # a set-up step
        (STEP, S.STOPPED, None, None, WAIT),
        (STEP, S.STARTING, None, None, WAIT),
        (STEP, S.RUNNING, None, None, WAIT),
        (STEP, S.EXITED, 0, None, UP),
        (STEP, S.EXITED, 1, None, FAILED),
        (STEP, S.EXITED, None, None, FAILED),
        (STEP, S.BACKOFF, None, None, WAIT),
        (STEP, S.FATAL, None, None, FAILED),
        # a program with a health check
        (CHECKED, S.STOPPED, None, None, WAIT),
        (CHECKED, S.STARTING, None, None, WAIT),
        (CHECKED, S.STARTING, None, True, WAIT),
        (CHECKED, S.RUNNING, None, None, WAIT),
        (CHECKED, S.RUNNING, None, True, UP),
        (CHECKED, S.RUNNING, None, False, FAILED),
        (CHECKED, S.BACKOFF, None, None, WAIT),
        (CHECKED, S.EXITED, 0, None, FAILED),
        (CHECKED, S.STOPPING, None, None, WAIT),
        (CHECKED, S.FATAL, None, None, FAILED),
        # a program without one
        (PLAIN, S.STARTING, None, None, WAIT),
        (PLAIN, S.RUNNING, None, None, UP),
        (PLAIN, S.EXITED, 0, None, FAILED),
        (PLAIN, S.UNKNOWN, None, None, WAIT),
        (PLAIN, S.FATAL, None, None, FAILED),
    ],
)
def test_up_failed_or_to_be_waited_for(
    want: DesiredProgram, state: ProgramState, exit_status: int | None, healthy: bool | None, expected: str
) -> None:
    got = ProgramReport(state=state, exit_status=exit_status, healthy=healthy)
    assert (is_up(want, got), has_failed(want, got)) == (expected == UP, expected == FAILED)


def test_a_program_that_supervisord_does_not_know_is_waited_for() -> None:
    assert not is_up(PLAIN, None)
    assert not has_failed(PLAIN, None)
