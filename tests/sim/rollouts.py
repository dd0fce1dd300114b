"""What a generation may break, written down beside the reconciler's own rollout.

Of machines that were in order when a generation came, one that cannot work is given to no more than max_unavailable,
by whatever way it reaches them. What a generation changes is not left to a person for what was before it.
"""

from __future__ import annotations

from collections.abc import Callable

from emp_orch.fleet.desired.values import DesiredMachine, ProgramKind
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import InstanceState, Observed
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.round import Inputs, Round
from support.fleet.world import BROKEN, BROKEN_PACKAGE, Host, World

# What a generation makes of a machine that is in order with the one before.
_CHANGED = {"config-behind", "generation-behind", "container-outdated", "worker-outdated"}
_WHOLE = (Verb.SEND_CONFIG, Verb.START_MACHINE, Verb.RESTART_MACHINE)


class RolloutWatch:
    """`spoilt`: those that were in order and were given what cannot work; True where another leader knows of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._generation = 0
        self._well: set[MachineId] = set()
        self._well_before: set[MachineId] = set()
        self._left_out: set[MachineId] = set()
        self._spoilt: dict[MachineId, bool] = {}
        self._brought: set[str] = set()

    def tell(self) -> None:
        self._spoilt = dict.fromkeys(self._spoilt, True)

    def take_over(self) -> None:
        self._spoilt = {i: told for i, told in self._spoilt.items() if told}

    def forget(self) -> None:
        """Nobody can be held to what nobody knows."""
        self._spoilt.clear()
        self._well.clear()

    def leave_out(self, machine_id: MachineId) -> None:
        """It does what nobody decided."""
        self._left_out.add(machine_id)
        self._spoilt.pop(machine_id, None)

    def look(self, inputs: Inputs, done: Round, fail: Callable[[str, str], None]) -> None:
        """Who is in order, but for what this generation changes; whether that is carried out."""
        desired = inputs.desired
        drifting = {item.drift.machine_id for item in done.items}
        otherwise = {item.drift.machine_id for item in done.items if item.drift.kind not in _CHANGED}
        if desired.generation != self._generation:
            self._generation = desired.generation
            self._spoilt.clear()
            self._brought.clear()
            self._well = self._well_before - otherwise
        self._brought |= {o.key for o in done.decision.run}
        for held in done.decision.held:
            if held.by is Hold.QUARANTINE and held.operation.brings and held.operation.key not in self._brought:
                fail("wanted", f"{held.operation.text}: {held.why}")
        self._well_before = {i for i in desired.machines if i not in drifting}

    def begin(self, operation: Operation, inputs: Inputs, fail: Callable[[str, str], None]) -> None:
        """An operation that emp begins by itself."""
        machine_id, desired = operation.machine_id, inputs.desired
        machine, host = desired.machines.get(machine_id), self._world.hosts.get(machine_id)
        if machine is None or host is None or machine_id not in self._well - self._left_out or _cannot_work(host):
            return
        whole = operation.verb in _WHOLE and _spoils(machine, operation.verb)
        worker = machine.program(operation.program) if operation.program else None
        package = desired.package is not None and desired.package.digest == BROKEN_PACKAGE
        anew = operation.verb is Verb.RESTART_MACHINE or (worker is not None and worker.kind is ProgramKind.WORKER)
        if not whole and not (package and anew):
            return
        self._spoilt.setdefault(machine_id, False)
        out = sorted(i for i in self._spoilt if _in_sight(i, inputs.observed, desired) or i == machine_id)
        if len(out) > desired.max_unavailable:
            fail("rollout", f"{operation.text}: what cannot work is given to {', '.join(out)}")


def _cannot_work(host: Host) -> bool:
    """Whether it was given what cannot work already."""
    programs = any(BROKEN in p.want.argv or p.package == BROKEN_PACKAGE for p in host.programs.values())
    return host.image == BROKEN or programs


def _spoils(machine: DesiredMachine, verb: Verb) -> bool:
    """Whether the machine cannot work after it: a configuration does not change what a container is made from."""
    programs = any(BROKEN in p.argv for p in machine.programs)
    image = machine.container is not None and machine.container.image == BROKEN
    return programs or (image and verb is not Verb.SEND_CONFIG)


def _in_sight(machine_id: MachineId, observed: Observed, desired: Desired) -> bool:
    instance, seen = observed.instances.get(machine_id), observed.machines.get(machine_id)
    unknown = instance is None or instance.state is InstanceState.UNKNOWN
    heard = seen is not None and abs(observed.now_ms - seen.seen_ms) <= desired.stale_after_ms
    return heard or not unknown
