"""The GPUs that somebody allotted a box that joined: only its own environment says so. docs/adr/0025."""

from __future__ import annotations

from collections.abc import Mapping

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.slots_of_allotment import give, too_few
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model import allotment
from emp_orch.host import gpus
from emp_orch.store.fleet.configs import MachineConfig


def as_allotted(machine: DesiredMachine, environ: Mapping[str, str]) -> DesiredMachine:
    """`machine` with its slots on the devices that `environ` allots. Raises EmpError when those are too few.

    Machines of other runtimes are configured where they were applied.
    """
    if not machine.traits.joins:
        return machine
    given = allotment.read(environ, gpus.uuids)
    if given is None:
        return machine
    if machine.needs_gpus and (why := too_few(machine.id, machine.num_gpus, given)):
        raise EmpError(
            f"{why} on this box", hint="lower num_gpus in emp.yaml, or start the machine where more are allotted"
        )
    return give(machine, given, {})


def supervisord_text(config: MachineConfig, environ: Mapping[str, str]) -> str:
    """What supervisord is to read on this box. Raises EmpError."""
    machine = as_allotted(config.machine, environ)
    if machine is config.machine:
        return config.supervisord
    from emp_orch.render.supervisord import render_machine
    from emp_orch.resources import read_text

    return render_machine(read_text("templates/supervisord.conf.j2"), machine)
