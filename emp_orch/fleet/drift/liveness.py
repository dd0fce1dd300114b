"""Who was heard lately, and who has not had the time to be: silence is told from absence here."""

from __future__ import annotations

from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Instance, InstanceState, Observed, SeenMachine

# How long a machine or worker may take from its process' start to its first report.
BOOT_GRACE_MS = 30_000
# How far a process' start and the times of Redis may be apart when they are compared.
CLOCKS_MS = 1_000
# What is shown of the name that another agent gives itself.
MAX_RIVAL = 200


# Why a silence of theirs may be ours.
NOBODY_WAS_HEARD = "nobody could be heard until just now"


def is_alive(seen_ms: int, desired: Desired, observed: Observed) -> bool:
    """Whether a subject last seen at `seen_ms` is known to be alive."""
    # Heard in the future means that Redis' clock was set back since.
    return abs(observed.now_ms - seen_ms) <= desired.stale_after_ms


def may_be_alive(seen_ms: int, machine_id: MachineId, desired: Desired, observed: Observed) -> bool:
    """Whether a subject of that machine, last seen at `seen_ms`, may be alive: what nobody could hear is no silence."""
    return any(is_alive(at, desired, observed) for at in (seen_ms, *listening_since(machine_id, observed)))


def listening_since(machine_id: MachineId, observed: Observed) -> tuple[int, int]:
    """When everybody could be heard again, and when this machine could."""
    everybody_ms = observed.observing_since_ms
    return everybody_ms, observed.back_ms.get(machine_id, everybody_ms)


class Visibility:
    """Of which machines nothing can be known, and since when it can again. Owned by one observer."""

    def __init__(self) -> None:
        self._unseen: frozenset[MachineId] = frozenset()
        self._unheard: frozenset[MachineId] = frozenset()
        self._back_ms: dict[MachineId, int] = {}

    def after(self, observed: Observed, desired: Desired) -> Observed:
        """`observed` with those that came back in it."""
        now_ms = observed.now_ms
        unseen, unheard = _unseen(observed), _unheard(observed, desired)
        matters_ms = max(desired.stale_after_ms, BOOT_GRACE_MS)
        lately = {i: at for i, at in self._back_ms.items() if abs(now_ms - at) <= matters_ms}
        # Who is seen again has not been heard yet: its silence begins.
        back = (self._unseen - unseen) | (self._unheard - unheard)
        self._back_ms = lately | dict.fromkeys(back, now_ms)
        self._unseen, self._unheard = unseen, unheard
        return structs.replace(observed, back_ms=self._back_ms) if self._back_ms else observed


def _unseen(observed: Observed) -> frozenset[MachineId]:
    return frozenset(i for i, n in observed.instances.items() if n.state is InstanceState.UNKNOWN)


def _unheard(observed: Observed, desired: Desired) -> frozenset[MachineId]:
    # Who is silent is among the changed at each look.
    asked = observed.machines if observed.changed is None else observed.changed.machines
    silent = [i for i in asked if (m := observed.machines.get(i)) and not is_alive(m.seen_ms, desired, observed)]
    unread = [
        MachineId(m.id)
        for m in observed.malformed
        if m.kind == "machine" and not is_alive(m.seen_ms, desired, observed)
    ]
    return frozenset((*silent, *unread))


def age(ms: int) -> str:
    return f"{ms / 1000:.0f} s"


def instance_of(machine: DesiredMachine, observed: Observed) -> Instance | None:
    """What its runtime says; None when no runtime that could know has answered."""
    if not machine.traits.seen:
        return None
    instance = observed.instances.get(machine.id)
    if instance is None and machine.runtime in observed.answered:
        return Instance(machine_id=machine.id, state=InstanceState.GONE, detail="it was never started")
    return instance


def live_report(machine: DesiredMachine, desired: Desired, observed: Observed) -> SeenMachine | None:
    """The machine's report, if it is recent and of its present life."""
    seen = observed.machines.get(machine.id)
    if seen is None or not is_alive(seen.seen_ms, desired, observed):
        return None
    instance = instance_of(machine, observed)
    return None if instance is not None and _is_former(seen, instance, observed) else seen


def _is_former(seen: SeenMachine, instance: Instance, observed: Observed) -> bool:
    """Whether the report is of a former life of the machine.

    Where only times can tell, they are believed just while the machine is young: clocks may be set later.
    """
    if instance.boot_id:
        return seen.report.boot_id != instance.boot_id
    young = instance.started_ms > 0 and observed.now_ms - instance.started_ms < BOOT_GRACE_MS
    return young and seen.report.started_ms + CLOCKS_MS < instance.started_ms


def overwritten(seen: SeenMachine, instance: Instance, desired: Desired, observed: Observed) -> str:
    """Who has written a running machine's report in this life of it, and is not its agent; empty when nobody has.

    A former life's report is as old as that life. What the machine's own agent says meanwhile is not known.
    """
    report, boot = seen.report, instance.boot_id
    ours = not boot or report.boot_id == boot or seen.seen_ms <= instance.started_ms + CLOCKS_MS
    if ours or not is_alive(seen.seen_ms, desired, observed):
        return ""
    return f"{report.boot_id} on {report.host}"[:MAX_RIVAL]


def is_young(instance: Instance, observed: Observed) -> bool:
    """Whether it was started too short a time ago to have been heard."""
    return observed.now_ms - instance.started_ms < BOOT_GRACE_MS


def is_booting(machine: DesiredMachine, desired: Desired, observed: Observed) -> bool:
    """Whether the machine runs, was not heard yet, and has not had the time to be."""
    instance = instance_of(machine, observed)
    if (
        instance is None
        or instance.state is not InstanceState.RUNNING
        or live_report(machine, desired, observed) is not None
    ):
        return False
    if is_young(instance, observed):
        return True
    seen = observed.machines.get(machine.id)
    if seen is not None:
        silent = not is_alive(seen.seen_ms, desired, observed)
        return silent and may_be_alive(seen.seen_ms, machine.id, desired, observed)
    # With no record at all, Redis may have been emptied: everybody gets the time to report anew.
    return any(observed.now_ms - at < BOOT_GRACE_MS for at in listening_since(machine.id, observed))
