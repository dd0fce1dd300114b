"""The machines of members, and a queue whose jobs have names: who holds which, until when, and how often each ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from emp_orch.fleet.desired.values import ProgramKind
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.plan.operations import Verb
from support.fleet.world import Host, World

JOB_MS = 7_000
LEASE_MS = 12_000


@dataclass
class Job:
    """`token` is another one at each claim: who has a former one is told so. `cut_short`: how often it was begun anew
    because its box was ended under it."""

    lane: str
    token: int = 0
    holder: WorkerId | None = None
    lease_ms: int = 0
    ended: int = 0


@dataclass
class Claim:
    job: Job
    token: int
    ends_ms: int


@dataclass
class PoolWorld(World):
    """`returned`: told of a job that goes back: whose it was, and whether that is known to be in order."""

    queue: list[Job] = field(default_factory=list)
    claims: dict[WorkerId, Claim] = field(default_factory=dict)
    refused_ends: int = 0
    returned: Callable[[WorkerId], None] = lambda wid: None

    def submit(self, lane: str, count: int) -> None:
        self.queue += [Job(lane) for _ in range(count)]

    def waiting_in(self, lane: str) -> int:
        return sum(j.lane == lane and j.holder is None and not j.ended for j in self.queue)

    @property
    def open_jobs(self) -> list[Job]:
        return [j for j in self.queue if not j.ended]

    def at_work(self, machine_id: MachineId) -> bool:
        """Whether a job is held there that is its still."""
        return any(machine_of(w) == machine_id and c.job.token == c.token for w, c in self.claims.items())

    def is_leaving(self, host: Host) -> bool:
        """Whether its workers were told to end."""
        config = self.configs.get(host.machine.id)
        told = any(c.verb is Verb.SEND_CONFIG for c in host.orders) and config is not None
        return host.stopping_since_ms > 0 or (told and config is not None and config[0].drained)

    def give_back(self, machine_id: MachineId) -> None:
        """Its workers were ended, and hand their jobs back at once."""
        for wid in [w for w in self.claims if machine_of(w) == machine_id]:
            claim = self.claims.pop(wid)
            self.jobs.pop(wid, None)
            if claim.job.token == claim.token and not claim.job.ended:
                claim.job.holder = None

    def stop(self, machine_id: MachineId, *, in_order: bool) -> None:
        host = self.hosts.get(machine_id)
        if host is not None and in_order and not host.cut:
            for wid in [w for w in self.claims if machine_of(w) == machine_id]:
                self.returned(wid)
            self.give_back(machine_id)
        self.drop_claims(machine_id)
        super().stop(machine_id, in_order=in_order)

    def drop_claims(self, machine_id: MachineId) -> None:
        """Whoever held them is no more; their leases end by themselves."""
        for wid in [w for w in self.claims if machine_of(w) == machine_id]:
            del self.claims[wid]
            self.jobs.pop(wid, None)

    # -- as World calls them

    def _return_jobs(self) -> None:
        """The leases do."""
        for job in self.open_jobs:
            if job.holder is not None and self.now_ms > job.lease_ms:
                self.returned(job.holder)
                job.holder = None

    def _at_work(self, wid: WorkerId, host: Host, *, able: bool) -> bool:
        self._go_on(wid)
        if able and wid not in self.claims and not self.is_leaving(host):
            self._claim(wid, {str(p.service) for p in host.machine.programs if p.kind is ProgramKind.SERVICE})
        return wid in self.claims

    def _go_on(self, wid: WorkerId) -> None:
        claim = self.claims.get(wid)
        if claim is None:
            return
        ours = claim.job.token == claim.token and claim.job.holder == wid
        if self.now_ms >= claim.ends_ms or not ours:
            del self.claims[wid]
            self.jobs.pop(wid, None)
            if ours:
                claim.job.ended += 1
                claim.job.holder = None
            else:
                self.refused_ends += 1
        else:
            claim.job.lease_ms = self.now_ms + LEASE_MS

    def _claim(self, wid: WorkerId, services: Iterable[str]) -> None:
        able = set(services)
        job = next((j for j in self.queue if j.holder is None and not j.ended and j.lane in able), None)
        if job is None:
            return
        job.token += 1
        job.holder, job.lease_ms = wid, self.now_ms + LEASE_MS
        self.claims[wid] = Claim(job, job.token, self.now_ms + JOB_MS)
        self.jobs[wid] = self.now_ms + JOB_MS

    def _obey(self, host: Host) -> list[str]:
        """A configuration without workers is taken over when these have done their jobs, as supervisord waits."""
        first = host.orders[0] if host.orders else None
        told = first is not None and first.verb is Verb.SEND_CONFIG and self.is_leaving(host)
        if told and self.at_work(host.machine.id):
            return []
        return super()._obey(host)
