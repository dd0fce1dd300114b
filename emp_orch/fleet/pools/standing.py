"""How each member of a pool stands: whether it counts, works, is idle, holds nothing, or is gone."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.drift.liveness import live_report, may_be_alive
from emp_orch.fleet.drift.slots import AT_WORK
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, PoolName
from emp_orch.fleet.model.ids import worker_id, worker_program
from emp_orch.fleet.model.observed import MachineStatus, Observed, ProgramState, SeenMachine, WorkerReport
from emp_orch.fleet.model.pools import Box, BoxState, SeenPool

# How long after a box was asked for its engine may not show it yet.
APPEARS_MS = 60_000
# Where its engine has no box of a member that joined: how long that must be silent before it counts as gone.
SILENT_MS = 60_000

_ENDED = frozenset({ProgramState.STOPPED, ProgramState.EXITED, ProgramState.FATAL})


class Standing(Struct, frozen=True, kw_only=True):
    """`gone`: why it will not be back; empty while it may. `in_`: it is heard. `ready`: it takes jobs. `jobs`: how many
    it runs, as far as anybody knows. `empty`: none, and it can take none. `box` as its engine says, None where that
    says nothing of it. `former`: only an engine that the pool had before has its box.
    """

    member: Member
    gone: str
    in_: bool
    ready: bool
    jobs: int
    empty: bool
    box: Box | None
    former: bool = False

    @property
    def busy(self) -> bool:
        return self.jobs > 0

    @property
    def leaving(self) -> bool:
        return self.member.leaving_ms > 0

    @property
    def counts(self) -> bool:
        """Whether it is one of those that the pool should have."""
        return not self.gone and not self.leaving and not self.former

    @property
    def expected(self) -> bool:
        """Whether it has never been there."""
        return not self.member.joined_ms and not self.in_

    @property
    def away(self) -> bool:
        """Whether no box of it is there: it was never in, went in good order, or waits for a place anew."""
        return not self.in_ and (not self.member.joined_ms or self.member.state is MemberState.LEFT or self.waits)

    @property
    def waits(self) -> bool:
        """Whether its engine has no place for its box, and it is not heard."""
        return not self.in_ and self.box is not None and self.box.state is BoxState.PENDING


def standings(pool: PoolName, desired: Desired, observed: Observed) -> tuple[Standing, ...]:
    """Of every member of `pool`, by id."""
    seen = observed.pools.get(pool, SeenPool())
    boxes = None if seen.boxes is None else {box.member_id: box for box in seen.boxes}
    members = sorted((m for m in desired.members.values() if m.pool == pool), key=lambda m: m.id)
    return tuple(_standing(m, boxes, desired, observed) for m in members if m.id in desired.machines)


def _standing(member: Member, boxes: dict[MachineId, Box] | None, desired: Desired, observed: Observed) -> Standing:
    machine = desired.machines[member.id]
    heard = live_report(machine, desired, observed)
    status = heard.report.status if heard is not None else None
    found = Standing(
        member=member,
        gone="" if boxes is None or heard is not None else _gone(member, boxes.get(member.id), desired, observed),
        in_=heard is not None,
        ready=status is MachineStatus.READY and member.leaving_ms == 0,
        jobs=sum(_at_work(w) for w in _workers(machine, observed)),
        empty=False,
        box=None if boxes is None else boxes.get(member.id),
        former=member.id in observed.pools.get(member.pool, SeenPool()).former,
    )
    jobs = 0 if found.waits else found.jobs  # what it ran went back with its lease
    holds_none = heard.report.config_hash == desired.digests[member.id] and _no_workers(heard) if heard else found.away
    return structs.replace(found, jobs=jobs, empty=not jobs and machine.drained and holds_none)


def _gone(member: Member, box: Box | None, desired: Desired, observed: Observed) -> str:
    """Why a member that says nothing will not be back, by what its engine says; empty where it may."""
    seen = observed.machines.get(member.id)
    now_ms = observed.now_ms
    if box is not None:
        # What it said last may be on its way still.
        may_speak = seen is not None and may_be_alive(seen.seen_ms, member.id, desired, observed)
        ended = box.state is BoxState.ENDED and not may_speak
        return f"its box ended{f': {box.words}' if box.words else ''}" if ended else ""
    if now_ms - max(member.born_ms, member.joined_ms) < APPEARS_MS:
        return ""
    if member.state is MemberState.LEFT:
        return "it left, and its engine has no box for it any more"
    silent_ms = now_ms - max(observed.observing_since_ms, seen.seen_ms if seen is not None else member.joined_ms)
    return "its engine has no box for it" if silent_ms >= SILENT_MS or not member.joined_ms else ""


def _workers(machine: DesiredMachine, observed: Observed) -> Iterator[WorkerReport]:
    """What its workers said last, also those that it is not to have any more."""
    for slot in range(machine.num_gpus):
        seen = observed.workers.get(worker_id(machine.id, slot))
        if seen is not None:
            yield seen.report


def _at_work(worker: WorkerReport) -> bool:
    return worker.status in AT_WORK or worker.current_job_id is not None


def _no_workers(seen: SeenMachine) -> bool:
    """Whether no worker runs there that could still take a job."""
    names = {worker_program(slot) for slot in range(seen.report.num_gpus)}
    return all(p.state in _ENDED for name, p in seen.report.programs.items() if name in names)
