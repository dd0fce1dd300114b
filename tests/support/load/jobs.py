"""Many jobs of all kinds, what may become of each, and a reader of events that holds them to it."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, cast

from emp_orch.connectors.simulation import Request, workflow_of
from emp_orch.jobs.document.states import ENDED, HELD, JobStatus, may_follow
from emp_orch.jobs.document.submission import Submission, parse_submission
from emp_orch.store.fleet.events import Event, Events
from emp_orch.store.queue.submit import CancelOutcome, Queue
from emp_orch.store.redis.client import TRANSIENT, Client
from support.redis.server import until
from support.worker.processes import KEYS

T = TypeVar("T")

# Jobs submitted at once.
BATCH = 100
# Jobs that have not ended, beyond which nothing is submitted.
BACKLOG = 600
# More than a job can lose to faults here.
PLENTY = 50


class Kind(StrEnum):
    DRAWN = "drawn"
    WORKFLOW = "workflow"
    LONG = "long"  # a second or two
    BROKEN = "broken"  # its node fails, in the service's words
    MALFORMED = "malformed"  # its payload does not fit
    SLOW = "slow"  # runs longer than a run may
    WITHDRAWN = "withdrawn"  # cancelled soon after it was submitted
    STOPPED = "stopped"  # cancelled when it runs


_SHARES = {
    Kind.WORKFLOW: 0.2,
    Kind.LONG: 0.02,
    Kind.BROKEN: 0.06,
    Kind.MALFORMED: 0.02,
    Kind.SLOW: 0.003,
    Kind.WITHDRAWN: 0.06,
    Kind.STOPPED: 0.015,
}

# All of them can be met by at least three workers.
ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"positive": {"zone": "a"}},
    {"positive": {"zone": "b"}},
    {"negative": {"zone": "a"}},
    {"positive": {"level": 5}},
    {"models": ["large"], "hardware": {"cpu_cores": 1}},
    {"customer": "acme"},
)
LANES_OF_A_SERVICE = len(ASKED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    kind: Kind
    submission: Submission


def _payload(kind: Kind, n: int, rng: random.Random) -> dict[str, Any]:
    small: dict[str, Any] = {"prompt": f"picture {n}", "seed": n, "steps": rng.randint(1, 4), "width": 16, "height": 16}
    match kind:
        case Kind.WORKFLOW:
            return {"workflow": workflow_of(Request(**small))}
        case Kind.BROKEN:
            return {**small, "fail": f"no paint for {n}"}
        case Kind.MALFORMED:
            return {"colour": n}
        case Kind.SLOW | Kind.STOPPED:
            return {**small, "steps": 10_000}
        case Kind.LONG:
            return {**small, "steps": 250}
        case Kind.DRAWN | Kind.WITHDRAWN:
            return small


def planned(
    rng: random.Random,
    count: int,
    *,
    unnamed: int,
    kinds: frozenset[Kind] = frozenset(Kind),
    asked: Sequence[dict[str, Any]] = ASKED,
) -> list[Planned]:
    """`count` jobs in random order. The first `unnamed` have no id; others bring an id or an idempotency key."""
    each = [kind for kind, share in _SHARES.items() if kind in kinds for _ in range(int(count * share))]
    each += [Kind.DRAWN] * (count - len(each))
    rng.shuffle(each)
    made = []
    for n, kind in enumerate(each):
        source: dict[str, Any] = {
            "service": "comfyui" if kind is Kind.WORKFLOW else "simulation",
            "payload": _payload(kind, n, rng),
            "priority": rng.choice((0, 0, 0, -5, 3, 10)),
            "requirements": rng.choice(asked),
            "max_retries": 1 if kind is Kind.SLOW else PLENTY,
        }
        if n >= unnamed:
            source |= {"id": f"load-{n}"} if rng.random() < 0.5 else {"idempotency_key": f"load {n}"}
        made.append(Planned(kind=kind, submission=parse_submission(source)))
    return made


def allowed(kind: Kind, cancel: CancelOutcome | None) -> frozenset[JobStatus]:
    """The statuses with which such a job may end. `cancel`: what its cancellation was answered with."""
    match kind:
        case Kind.DRAWN | Kind.WORKFLOW | Kind.LONG:
            return frozenset({JobStatus.COMPLETED})
        case Kind.BROKEN | Kind.MALFORMED:
            return frozenset({JobStatus.FAILED})
        # Failed, when its last run lost its worker or service; completed, when nobody was left to stop the run in time.
        case Kind.SLOW:
            return frozenset({JobStatus.TIMEOUT, JobStatus.FAILED, JobStatus.COMPLETED})
        case Kind.WITHDRAWN | Kind.STOPPED:
            done = JobStatus.CANCELLED if cancel is CancelOutcome.CANCELLED else JobStatus.COMPLETED
            return frozenset({JobStatus.CANCELLED, done})


async def through(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of `call`, tried again while Redis is away."""
    while True:
        try:
            return await call()
        except TRANSIENT:
            await asyncio.sleep(0.1)


def _sort_of(reason: str) -> str:
    """`reason` without names and numbers of its own."""
    return re.sub(r"(worker|http:)\S+|\d+", "…", reason.splitlines()[0])[:80]


class Watch:
    """Follows the events from the first on, and notes every change that may not be."""

    def __init__(self, r: Client) -> None:
        self._events = Events(r, KEYS)
        self._holder: dict[str, str] = {}
        self.status: dict[str, JobStatus] = {}
        self.ended: dict[str, JobStatus] = {}
        self.wrong: list[str] = []
        self.reasons: Counter[str] = Counter()
        self.submitted = 0
        self.begun: asyncio.Queue[str] = asyncio.Queue()

    async def follow(self) -> None:
        after = "0-0"
        while True:
            for event in await through(lambda: self._events.since(after, count=1000, block_ms=500)):  # noqa: B023
                after = event.id
                self.take(event)

    async def until_ended(self, count: int, *, within_s: float = 120) -> None:
        async def reached() -> bool:
            return len(self.ended) >= count

        await until(reached, within_s=within_s)

    def take(self, event: Event) -> None:
        data = event.data
        if event.type == "jobs_submitted":
            self.submitted += data["count"]
        elif event.type.startswith("job_"):
            self._change(event, data["job_id"], JobStatus(data["status"]), data["worker_id"])

    def _change(self, event: Event, job_id: str, after: JobStatus, worker: str | None) -> None:
        before, holder = self.status.get(job_id, JobStatus.PENDING), self._holder.get(job_id)
        match event.type:
            case "job_submitted":
                self.submitted += 1
                fine = job_id not in self.status
            case "job_assigned":
                fine = may_follow(before, after) and worker is not None
                self._holder[job_id] = str(worker)
            case "job_progress":
                fine = before in HELD and worker == holder
                if before is JobStatus.ASSIGNED:
                    self.begun.put_nowait(job_id)
            case "job_cancel_requested":
                fine = before is after and worker == holder
            case _:
                fine = may_follow(before, after) and worker == holder
                self._holder.pop(job_id, None)
        if event.type in ("job_requeued", "job_completed") and "reason" in event.data:
            self.reasons[f"{after}: {_sort_of(event.data['reason'])}"] += 1
        if not fine:
            self.wrong.append(f"{event.id} {event.type} of {job_id} by {worker}: it was {before}, held by {holder}")
        self.status[job_id] = after
        if after in ENDED:
            self.ended[job_id] = after


# Every job is in one place; each class that serves a lane with jobs has an entry in its heads at or before the first.
# ARGV: prefix. Returns what is wrong, in words.
_PLACES = """
local p, wrong, at = ARGV[1], {}, {}
local function put(id, where)
  if at[id] then wrong[#wrong + 1] = id .. ' is in ' .. at[id] .. ' and in ' .. where end
  at[id] = where
end
local function best_of(class, sig)
  local heads = redis.call('ZRANGE', p .. 'heads:' .. class, 0, -1, 'WITHSCORES')
  for i = 1, #heads, 2 do
    if string.sub(heads[i], -16) == sig then return {tonumber(heads[i + 1]), heads[i]} end
  end
end
for _, sig in ipairs(redis.call('HKEYS', p .. 'lanes')) do
  local entries = redis.call('ZRANGE', p .. 'lane:' .. sig, 0, -1)
  for _, entry in ipairs(entries) do put(string.sub(entry, 22), 'lane ' .. sig) end
  if entries[1] then
    local score = tonumber(redis.call('ZSCORE', p .. 'lane:' .. sig, entries[1]))
    for _, class in ipairs(redis.call('SMEMBERS', p .. 'lane-classes:' .. sig)) do
      local b = best_of(class, sig)
      if not b or b[1] > score or (b[1] == score and b[2] > entries[1] .. '|' .. sig) then
        wrong[#wrong + 1] = 'lane ' .. sig .. ' is not in heads:' .. class .. ' as it should: ' .. entries[1]
      end
    end
  end
end
for _, id in ipairs(redis.call('ZRANGE', p .. 'leases', 0, -1)) do put(id, 'leases') end
for _, status in ipairs({'completed', 'failed', 'cancelled', 'timeout'}) do
  for _, id in ipairs(redis.call('ZRANGE', p .. 'jobs:in:' .. status, 0, -1)) do put(id, status) end
end
for _, id in ipairs(redis.call('SMEMBERS', p .. 'jobs:begun')) do
  if at[id] ~= 'leases' then wrong[#wrong + 1] = id .. ' is begun, and in ' .. (at[id] or 'no place') end
end
for _, id in ipairs(redis.call('HKEYS', p .. 'jobs')) do
  if not at[id] then wrong[#wrong + 1] = id .. ' is nowhere' end
  at[id] = nil
end
for id, where in pairs(at) do wrong[#wrong + 1] = id .. ' is no job, and in ' .. where end
return wrong
"""


async def misplaced(r: Client) -> list[str]:
    """What is wrong with where jobs are, at one instant."""
    return cast(list[str], await cast(Any, r).eval(_PLACES, 0, KEYS.prefix))


class Load:
    """One run: submits, cancels, and keeps what was answered."""

    def __init__(self, r: Client, rng: random.Random, plan: list[Planned]) -> None:
        self.r = r
        self.queue = Queue(r, KEYS)
        self.watch = Watch(r)
        self.jobs: dict[str, Planned] = {}
        self.cancelled: dict[str, CancelOutcome] = {}
        self._rng = rng
        self._plan = plan

    def kind_of(self, job_id: str) -> Kind | None:
        plan = self.jobs.get(job_id)
        return None if plan is None else plan.kind

    async def submit(self) -> None:
        """All, a batch at a time, the first before anything goes wrong.

        Named ones can be sent again after Redis was away; some are for no reason.
        """
        for at in range(0, len(self._plan), BATCH):
            await self.watch.until_ended(at - BACKLOG)
            batch = self._plan[at : at + BATCH]
            again = self._rng.random() < 0.3
            sent = await through(lambda: self.queue.submit_many(p.submission for p in batch))  # noqa: B023
            self.jobs |= {s.job_id: p for s, p in zip(sent, batch, strict=True)}
            if at and again:
                sent = await through(lambda: self.queue.submit_many(p.submission for p in batch))  # noqa: B023
                assert not any(s.created for s in sent) and all(s.same for s in sent)
            for s, p in zip(sent, batch, strict=True):
                if p.kind is Kind.WITHDRAWN:
                    await self._cancel(s.job_id)

    async def stop_begun(self) -> None:
        """Cancel those that are to be, as soon as they run; for ever."""
        while True:
            job_id = await self.watch.begun.get()

            async def submitted(job_id: str = job_id) -> bool:
                return job_id in self.jobs

            await until(submitted)  # its event can be faster than the answer to its submission
            if self.jobs[job_id].kind is Kind.STOPPED:
                await self._cancel(job_id)

    async def _cancel(self, job_id: str) -> None:
        said = await through(lambda: self.queue.cancel(job_id, reason="a test asked for it"))
        # A cancellation that was carried out but not answered is `ended` when it is asked for again.
        self.cancelled[job_id] = said

    async def look(self) -> None:
        """Where the jobs are, now and again; for ever."""
        while True:
            assert await through(lambda: misplaced(self.r)) == []
            await asyncio.sleep(1)


@asynccontextmanager
async def beside(*loops: Any) -> AsyncIterator[None]:
    """`loops` run until the block ends; the first that breaks ends the block."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(loop) for loop in loops]
        yield
        for task in running:
            task.cancel()
