"""Any sequence of what may befall the queue, held against the model after every step (Hypothesis, stateful)."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from emp_orch.jobs.document.model import Crash, JobError, Progress, Result
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import HELD, JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.offers import Needs, model_key
from emp_orch.jobs.matching.requirements import lane_of
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Lease, Waiting
from emp_orch.store.queue.port import ClaimsPort
from emp_orch.store.queue.submit import CancelOutcome, NoSuchJob, NotNow
from support.queue.model import END_EVENTS, ENDS, KINDS, LANES, SERVES, Model, ModelJob, Run
from support.queue.worlds import LEASE_MS, LONG_MS, MIDDLE_MS, SHORT_MS, World
from support.redis.server import job as submission

T = TypeVar("T")

LANE_IDS = {name: lane_of(submission(**fields).requirements) for name, fields in LANES.items()}
# How a run may end: the cause and whether it may be retried; the other two have no cause.
FAILURES = {
    "fail": (Cause.FAILED, True),
    "fail for good": (Cause.FAILED, False),
    "time out": (Cause.TIMEOUT, True),
    "time out for good": (Cause.TIMEOUT, False),
    "hand back": (Cause.HANDED_BACK, True),
    "crash": (Cause.CRASHED, True),
}
HOWS = st.sampled_from([*FAILURES, "crash", "fail", "complete", "cancelled"])
WORKERS = st.sampled_from(["w0", "w1", "w2"])
# Mostly those whose lease stands; now and then those who lost it.
STANDING = st.sampled_from([True, True, True, False])
SENT = st.fixed_dictionaries(
    {
        "lane": st.sampled_from(["plain", "plain", *LANES]),
        "priority": st.sampled_from([0, 0, 5, -5]),
        "max_retries": st.sampled_from([0, 1, 2]),
        "id": st.sampled_from([None, None, None, "a", "b"]),
        "secret": st.sampled_from([False, False, False, True]),
        "model": st.sampled_from([None, "k.ckpt"]),
    }
)
SECRET = Secrets({"key": "open sesame"})
# Which of the jobs or runs there are: counted from the newest.
WHICH = st.integers(0, 12)


def to_submission(sent: dict[str, Any]) -> Submission:
    left_out = ("lane", "secret", "model")
    fields = {name: value for name, value in sent.items() if name not in left_out and value is not None}
    made = submission(**LANES[sent["lane"]], payload=payload_with(sent["model"]), **fields)
    return replace(made, secrets=SECRET) if sent["secret"] else made


def payload_with(model: str | None) -> dict[str, Any]:
    return {"1": {"class_type": "L", "inputs": {"ckpt_name": model}}} if model else {}


class QueueMachine(RuleBasedStateMachine):
    """One example: a world, its model, and an event loop of its own."""

    # No step takes longer. In memory nothing that is to come is ever awaited, so little is enough.
    patience_s: ClassVar[float] = 20.0

    @staticmethod
    async def new_world() -> World:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = self.do(self.new_world())
        self.model = Model()
        self.claims: dict[str, ClaimsPort] = {}
        self.tokens: set[str] = set()
        self.told: defaultdict[str, list[tuple[str, str | None, str]]] = defaultdict(list)
        # Workers that registered as waiting and have not claimed since → their kind, and when they come back anyway.
        self.registered: dict[str, tuple[str, float]] = {}
        self.touched: set[str] = set()
        self.in_batches = self.told_in_batches = 0

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        async def within_reason() -> T:
            async with asyncio.timeout(self.patience_s):
                return await step

        return self.loop.run_until_complete(within_reason())

    def teardown(self) -> None:
        self.do(self.world.close())
        left = asyncio.all_tasks(self.loop)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        assert not left, f"tasks that nobody awaits: {left}"

    def claims_of(self, worker: str) -> ClaimsPort:
        if worker not in self.claims:
            self.claims[worker] = self.world.claims(worker)
        return self.claims[worker]

    def a_job(self, which: int, some: list[ModelJob]) -> ModelJob:
        """One of `some`, or of all if those are none."""
        newest = (some or list(self.model.jobs.values()))[::-1]
        return newest[which % len(newest)]

    def a_run(self, which: int, standing: bool) -> Run | None:
        """The newest first; of those that do not stand, first those whose job is another's now."""
        runs = [run for run in reversed(self.model.runs) if self.model.stands(run) is standing]
        runs.sort(key=lambda run: run.job_id not in self.model.jobs or self.model.jobs[run.job_id].run is None)
        return runs[which % len(runs)] if runs else None

    # --- submitting

    def note_submitted(self, sent: dict[str, Any], answer: Any, *, in_batch: bool = False) -> None:
        known = self.model.jobs.get(answer.job_id)
        assert answer.created is (known is None), "submitting is idempotent on the id"
        assert sent["id"] in (None, answer.job_id)
        if known is None:
            self.model.submitted(answer.job_id, sent, in_batch=in_batch)
            self.in_batches += in_batch
        if known is not None:
            assert answer.status is self.model.status_of(known)
            names = ("lane", "max_retries", "secret", "model")
            asked = (known.asked, known.max_retries, known.secret, known.model) == tuple(sent[n] for n in names)
            assert answer.same is asked, "whoever uses an id for another job is told"
        self.touched.add(answer.job_id)

    @rule(sent=SENT)
    def submit(self, sent: dict[str, Any]) -> None:
        self.note_submitted(sent, self.do(self.world.queue.submit(to_submission(sent))))

    @rule(batch=st.lists(SENT, max_size=3))
    def submit_many(self, batch: list[dict[str, Any]]) -> None:
        answers = self.do(self.world.queue.submit_many([to_submission(sent) for sent in batch]))
        assert len(answers) == len(batch)
        for sent, answer in zip(batch, answers, strict=True):
            self.note_submitted(sent, answer, in_batch=len(batch) > 1)

    # --- working

    @rule(worker=WORKERS, kind=st.sampled_from(sorted(KINDS)))
    def claim(self, worker: str, kind: str) -> None:
        expected = self.model.next_for(worker, kind)
        claims = self.claims_of(worker)
        answer = self.do(claims.claim_or_wait(KINDS[kind]))
        self.registered.pop(worker, None)
        if expected is None:
            assert isinstance(answer, Waiting), f"{worker} ({kind}) was given {answer}"
            patience_s = self.model.patience_s(worker, kind)
            assert patience_s - 60 <= answer.seconds <= patience_s + 0.01
            self.registered[worker] = kind, self.model.now_ms + patience_s * 1000
            return
        assert isinstance(answer, Claimed), f"{worker} ({kind}) should get {expected.id}"
        assert answer.job.id == expected.id, "priority first, then in the order of submission"
        assert answer.token not in self.tokens, "a token is given once"
        self.tokens.add(answer.token)
        run = Run(answer, claims, expected.id, worker, self.model.now_ms + LEASE_MS)
        self.model.claimed(expected, run)
        seen = self.do(self.world.queue.get(expected.id))
        assert replace(answer.job, history=()) == replace(seen, history=()), "the worker gets the job as it is"
        secrets = self.do(claims.secrets(answer))
        assert secrets == (SECRET if expected.secret else Secrets()), "and what it gave as secrets"
        self.touched.add(expected.id)

    @precondition(lambda self: self.model.waiting())
    @rule(worker=WORKERS, which=WHICH)
    def claim_with_the_kind_for_a_job(self, worker: str, which: int) -> None:
        """As `claim`, where random choice would too often find nothing to do."""
        lane = self.a_job(which, self.model.waiting()).lane
        if kinds := [kind for kind, lanes in SERVES.items() if lane in lanes]:
            self.claim(worker, kinds[which % len(kinds)])

    def answer_of(self, run: Run) -> Lease:
        if not self.model.stands(run):
            return Lease.LOST
        return Lease.CANCEL if self.model.jobs[run.job_id].cancel else Lease.OK

    @precondition(lambda self: self.model.runs)
    @rule(which=WHICH, standing=STANDING, midway=st.booleans())
    def renew(self, which: int, standing: bool, midway: bool) -> None:
        """In the middle of its time, after which it outlives that (`midway`); or whenever.

        Also a lease that is over stands again, as long as nobody reaped it.
        """
        if midway:
            self.time_passes(MIDDLE_MS)
        if run := self.a_run(which, standing):
            assert self.do(run.claims.renew(run.claimed)) is self.answer_of(run)
            if standing:
                self.model.renewed(run)
            self.touched.add(run.job_id)
        if midway:
            self.time_passes(MIDDLE_MS)
            self.reap(late=False)

    @precondition(lambda self: self.model.runs)
    @rule(which=WHICH, standing=STANDING, fraction=st.sampled_from([0.0, 0.25, 1.0]))
    def progress(self, which: int, standing: bool, fraction: float) -> None:
        if run := self.a_run(which, standing):
            progress = Progress(fraction=fraction, message="so far")
            assert self.do(run.claims.progress(run.claimed, progress)) is self.answer_of(run)
            if standing:
                self.model.progressed(self.model.jobs[run.job_id])
                assert self.do(self.world.queue.get(run.job_id)).progress == progress
            self.touched.add(run.job_id)

    @precondition(lambda self: self.model.runs)
    @rule(which=WHICH, standing=STANDING, how=HOWS)
    def finish(self, which: int, standing: bool, how: str) -> None:
        run = self.a_run(which, standing)
        if run is None:
            return
        result, error = Result(detail={"by": run.claimed.token}), JobError(message="no luck")
        if how == "complete":
            answer = self.do(run.claims.completed(run.claimed, result))
        elif how == "cancelled":
            answer = self.do(run.claims.cancelled(run.claimed))
        else:
            cause, retryable = FAILURES[how]
            error = JobError(message=f"no luck: {how}", retryable=retryable)
            crash = Crash(worker_id=run.worker, service="sim", how="status 3") if how == "crash" else None
            answer = self.do(run.claims.not_completed(run.claimed, cause, error, crash=crash))
        self.touched.add(run.job_id)
        if not standing:
            assert answer is None, "who lost the lease ends nothing"
            return
        status = self.model.over(self.model.jobs[run.job_id], how)
        assert answer is status
        job = self.do(self.world.queue.get(run.job_id))
        if how == "complete":
            assert job.result == result and job.error is None and job.progress == Progress(fraction=1)
        elif how in FAILURES and how != "hand back" and job.status is not JobStatus.UNWORKABLE:
            poison = status is JobStatus.FAILED and self.model.is_poison(self.model.jobs[run.job_id], how)
            assert job.error is not None and (
                job.error.message.startswith("poison: it ended sim on ") if poison else job.error == error
            )
        assert {c.worker_id for c in job.crashes} == set(self.model.jobs[run.job_id].crashed)

    @precondition(lambda self: any(run for run in self.model.runs if self.lane_of_run(run) in ("plain", "needs-m")))
    @rule(which=WHICH, standing=STANDING)
    def lacks(self, which: int, standing: bool) -> None:
        """Its worker finds that its service has no m.ckpt, which the job needs: others are to have it."""
        run = self.a_run(which, standing)
        if run is None or self.lane_of_run(run) not in ("plain", "needs-m"):
            return
        answer = self.do(run.claims.lacks(run.claimed, Needs(models=("m.ckpt",)), "no m.ckpt here"))
        self.touched.add(run.job_id)
        if not standing:
            assert answer is None, "who lost the lease moves nothing"
            return
        assert answer is self.model.lacked(self.model.jobs[run.job_id])
        job = self.do(self.world.queue.get(run.job_id))
        assert job.lane == LANE_IDS[self.model.jobs[run.job_id].lane]

    @precondition(lambda self: self.claims)
    @rule(worker=WORKERS, model=st.sampled_from(["k.ckpt", "k.ckpt", *"abcde"]))
    def a_worker_has_run_a_model(self, worker: str, model: str) -> None:
        """Who is woken for a job changes with that, and nothing that is promised."""
        self.do(self.claims_of(worker).ran(model_key(payload_with(model)) or model))

    def lane_of_run(self, run: Run) -> str:
        job = self.model.jobs.get(run.job_id)
        return job.lane if job else ""

    @precondition(lambda self: self.claims)
    @rule(worker=WORKERS, crashes=st.booleans())
    def a_worker_goes(self, worker: str, crashes: bool) -> None:
        """It forgets all, and its leases stand until they are over; or it takes its leave and may come again."""
        if crashes:
            self.claims.pop(worker, None)
        else:
            self.do(self.claims_of(worker).leave())
            self.registered.pop(worker, None)

    @precondition(lambda self: self.model.waiting())
    @rule(worker=WORKERS, which=WHICH, how=HOWS)
    def claim_and_finish(self, worker: str, which: int, how: str) -> None:
        runs = len(self.model.runs)
        self.claim_with_the_kind_for_a_job(worker, which)
        if len(self.model.runs) > runs:
            self.finish(0, True, how)

    @precondition(lambda self: not self.registered)
    @rule(kind=st.sampled_from(["simple", *sorted(KINDS)]))
    def work_off_what_there_is(self, kind: str) -> None:
        """Two workers do all they may, and wait."""
        for worker in ("w0", "w1"):
            self.claim(worker, kind)
            while worker not in self.registered:
                self.finish(0, True, "complete")
                self.claim(worker, kind)

    @precondition(lambda self: len(self.registered) > 1)
    @rule(sent=SENT, lane=st.sampled_from(["plain", "not-eu", "not-eu"]), leaves=st.sampled_from([False, False, True]))
    def whoever_is_woken_goes(self, sent: dict[str, Any], lane: str, leaves: bool) -> None:
        """It leaves, or claims with capabilities that are not for this job: the job is for others who wait."""
        sent = {**sent, "lane": lane, "id": None}
        self.submit(sent)
        others = [kind for kind, lanes in sorted(SERVES.items()) if sent["lane"] not in lanes]
        for worker in sorted(self.registered):
            if self.do(self.claims_of(worker).wait(0)) is not None:
                if others and not leaves:
                    self.claim(worker, others[0])
                else:
                    self.do(self.claims_of(worker).leave())
                    self.registered.pop(worker)
                break
        self.everyone_who_waits_answers()

    @precondition(lambda self: self.registered and self.model.held())
    @rule(which=WHICH)
    def a_job_comes_back_while_others_wait(self, which: int) -> None:
        self.finish(which, True, "hand back")
        self.everyone_who_waits_answers()

    @precondition(lambda self: self.registered)
    @rule()
    def everyone_who_waits_answers(self) -> None:
        """After those who were woken have claimed, nobody waits for whom there is a job."""
        answered = True
        while answered:
            answered = False
            for worker, (kind, until_ms) in sorted(self.registered.items()):
                if self.do(self.claims_of(worker).wait(0)) is not None or until_ms <= self.model.now_ms:
                    self.claim(worker, kind)
                    answered = True
        for worker, (kind, _) in self.registered.items():
            # A job that it was passed over for is not its business: it comes back by itself when it may have it.
            stranded = [j.id for j in self.model.waiting(kind) if j.avoid is None or j.avoid[0] != worker]
            assert not stranded, f"{worker} ({kind}) waits, and so do {stranded}"

    # --- time

    @precondition(lambda self: self.model.held() or any(j.avoid for j in self.model.waiting()))
    @rule(ms=st.sampled_from([SHORT_MS, MIDDLE_MS, LONG_MS]))
    def time_passes(self, ms: int) -> None:
        self.do(self.world.pass_time(ms))
        self.model.now_ms += ms

    @precondition(lambda self: self.model.held() or self.registered)
    @rule(late=st.booleans())
    def reap(self, late: bool) -> None:
        """At once, or after the lease of everyone is over."""
        if late:
            self.time_passes(LONG_MS)
        swept = self.do(self.world.reap())
        expected = set()
        for job in self.model.lost():
            assert job.run is not None
            worker = job.run.worker
            expected.add((job.id, worker, self.model.over(job, "lose")))
            self.touched.add(job.id)
        assert {(s.job_id, s.worker_id, s.status) for s in swept} == expected and len(swept) == len(expected)

    @precondition(lambda self: self.model.held())
    @rule(worker=WORKERS, how=HOWS)
    def whoever_lost_a_job_ends_it(self, worker: str, how: str) -> None:
        """While another holds it already, mostly."""
        self.reap(late=True)
        for which in range(2):
            if self.model.waiting():
                self.claim_with_the_kind_for_a_job(worker, which)
        self.finish(0, False, how)

    # --- people

    @precondition(lambda self: self.model.jobs)
    @rule(which=WHICH, running=st.booleans())
    def cancel(self, which: int, running: bool) -> None:
        """One that a worker has, when `running` and there is one; else any."""
        job = self.a_job(which, self.model.held() if running else [])
        answer = self.do(self.world.queue.cancel(job.id, reason="a person"))
        self.touched.add(job.id)
        if job.status is JobStatus.PENDING:
            assert answer is CancelOutcome.CANCELLED
            self.model.cancelled_waiting(job)
        elif job.status in ENDS:
            assert answer is CancelOutcome.ENDED
        else:
            assert answer is CancelOutcome.REQUESTED
            first, run = self.model.stop_asked(job), job.run
            assert run is not None
            if first and run.worker not in self.registered:
                self.do(run.claims.cancel_notice(job.id))  # comes at once, or `do` gives up

    @precondition(lambda self: self.model.jobs)
    @rule(which=WHICH, ended=STANDING)
    def retry(self, which: int, ended: bool) -> None:
        job = self.a_job(which, self.model.ended() if ended else [])
        self.touched.add(job.id)
        if job.status in ENDS - {JobStatus.COMPLETED} and not job.secret:
            self.do(self.world.queue.retry(job.id))
            self.model.retried(job)
            return
        try:
            self.do(self.world.queue.retry(job.id))
        except NotNow:
            return
        raise AssertionError(f"{job.id} is {job.status} and was retried")

    @initialize()
    def nothing_is_known_of_a_stranger(self) -> None:
        queue = self.world.queue
        for ask in (queue.get, queue.cancel, queue.retry):
            try:
                self.do(ask("stranger"))
            except NoSuchJob:
                continue
            raise AssertionError(f"{ask} answered for a job that never was")

    @precondition(lambda self: self.model.waiting())
    @rule(lane=st.sampled_from(["plain", "nobody"]), workable=st.booleans())
    def call_a_lane_unworkable_or_not(self, lane: str, workable: bool) -> None:
        changes = (lane in self.model.unworkable) is workable
        waiting = sum(job.lane == lane for job in self.model.waiting())
        why = "" if workable else "no worker of the fleet has it"
        assert self.do(self.world.queue.judge(LANE_IDS[lane], why)) == (waiting if changes else -1)
        if workable:
            self.model.unworkable.discard(lane)
        else:
            self.model.unworkable.add(lane)

    @precondition(lambda self: len(self.model.ended()) > 2)
    @rule(statuses=st.sets(st.sampled_from(sorted(ENDS)), max_size=2), old=st.sampled_from([True, True, False]))
    def purge(self, statuses: set[JobStatus], old: bool) -> None:
        gone = [j.id for j in self.model.jobs.values() if j.status in statuses and old]
        assert self.do(self.world.queue.purge(statuses, older_than_s=0 if old else 1e9)) == len(gone)
        for job_id in gone:
            del self.model.jobs[job_id]
            self.told.pop(job_id, None)

    # --- what always holds

    @invariant()
    def agrees(self) -> None:
        self.do(self.agree())
        self.touched.clear()

    async def agree(self) -> None:
        model, queue = self.model, self.world.queue
        await self.events_agree()
        page = await queue.list(limit=1000)
        assert page.total == len(page.jobs) == len(model.jobs)
        for summary, job in zip(page.jobs, sorted(model.jobs.values(), key=lambda j: -j.place), strict=True):
            worker = job.run.worker if job.run else None
            assert summary.id == job.id, "the newest first"
            assert summary.status is model.status_of(job), f"{job.id} is {summary.status}, not {model.status_of(job)}"
            assert (summary.attempts, summary.cancel_requested) == (job.attempts, job.cancel), job.id
            assert (summary.priority, summary.max_retries) == (job.priority, job.max_retries), job.id
            assert (summary.finished_ms is not None) is (job.status in ENDS), job.id
            if job.status not in ENDS:
                assert summary.worker_id == worker, job.id
        numbers = Counter(model.status_of(j) for j in model.jobs.values())
        assert await queue.counts() == {status: numbers[status] for status in JobStatus}
        await self.places_agree()
        for job_id in sorted(self.touched & model.jobs.keys()):
            seen = await queue.get(job_id)
            assert [h.event for h in seen.history] == model.jobs[job_id].history
            assert seen.status is model.status_of(model.jobs[job_id])

    async def places_agree(self) -> None:
        """Every job is in one place, and that is the right one."""
        found = await self.world.places()
        lanes: dict[str, list[str]] = {}
        for job in self.model.waiting():
            lanes.setdefault(LANE_IDS[job.lane], []).append(job.id)
        assert {lane: list(ids) for lane, ids in found.lanes.items()} == lanes
        jobs = self.model.jobs.values()
        assert sorted(found.secrets) == sorted(j.id for j in self.model.jobs.values() if j.secret and not j.ends), (
            "secrets are kept until the end, and no longer"
        )
        assert sorted(found.leased) == sorted(j.id for j in jobs if j.status in HELD)
        assert sorted(found.ended) == sorted(j.id for j in jobs if j.status in ENDS)
        for status, ids in found.by_status.items():
            assert ids == {j.id for j in jobs if self.model.status_of(j) is status}, status

    async def events_agree(self) -> None:
        """Each change was published, once, and each end is one end."""
        for event in await self.world.news():
            if event.type == "jobs_submitted":
                self.told_in_batches += int(event.data["count"])
            if (job_id := event.data.get("job_id")) is not None:
                assert event.data["type"] == event.type
                self.told[job_id].append((event.type, event.data["worker_id"], event.data["status"]))
        for job in self.model.jobs.values():
            assert self.told[job.id] == job.events[job.in_batch :], job.id
            assert sum(kind in END_EVENTS for kind, _, _ in self.told[job.id]) == job.ends
        assert self.told.keys() <= self.model.jobs.keys()
        assert self.told_in_batches == self.in_batches
