"""What services offer, in Redis: kept once, believed only when it is what its name says; and jobs that move for it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from emp_orch.jobs.document.model import JobError, Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.offers import Needs, Offers, digest_of, encoded, model_key
from emp_orch.jobs.matching.requirements import lane_of
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Claims, Waiting
from emp_orch.store.queue.memory.queue import MemoryClaims, MemoryQueue
from emp_orch.store.queue.offers import MAX_TEXT_BYTES, OffersStore, TooLarge
from emp_orch.store.queue.port import ClaimsPort, QueuePort
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.redis.server import job

KEYS = Keys("t:")
HAS = Offers(nodes={"SaveImage": ("a", "b")}, outputs=frozenset({"SaveImage"}), models=frozenset({"m.ckpt", "ü.pt"}))
TEXT = encoded(HAS)
DIGEST = digest_of(TEXT)


async def test_workers_with_the_same_share_one_document(r: Client) -> None:
    for _ in range(3):
        await OffersStore(r, KEYS).keep(DIGEST, TEXT)
    assert await r.keys("t:offers:*") == [f"t:offers:{DIGEST}"]
    assert 3_500_000 < await r.pttl(KEYS.offers(DIGEST)) <= 3_600_000
    await r.pexpire(KEYS.offers(DIGEST), 1_000)
    await OffersStore(r, KEYS).keep(DIGEST, TEXT)
    assert await r.pttl(KEYS.offers(DIGEST)) > 3_500_000, "whoever names it keeps it"
    assert await OffersStore(r, KEYS).of([DIGEST, "unknown"]) == {DIGEST: HAS}


@pytest.mark.parametrize(
    "stored",
    [
        "no base64!",
        base64.b64encode(b"not compressed").decode(),
        base64.b64encode(zlib.compress(b'{"models": 5}')).decode(),
        base64.b64encode(zlib.compress(encoded(Offers(models=frozenset({"another"}))))).decode(),
        base64.b64encode(zlib.compress(TEXT)[:-8]).decode(),
        base64.b64encode(zlib.compress(b" " * (MAX_TEXT_BYTES + 1))).decode(),
        "A" * (2 * 1024**2 + 1),
    ],
)
async def test_what_somebody_else_wrote_is_not_believed(r: Client, stored: str) -> None:
    await r.set(KEYS.offers(DIGEST), stored)
    assert await OffersStore(r, KEYS).of([DIGEST]) == {}


async def test_what_is_too_large_is_not_kept(r: Client) -> None:
    import random

    some = random.Random(1)
    text = encoded(Offers(models=frozenset(some.randbytes(60).hex() for _ in range(60_000))))
    with pytest.raises(TooLarge):
        await OffersStore(r, KEYS).keep(digest_of(text), text)
    assert await r.keys("t:offers:*") == []


def capable(digest: str) -> dict[str, object]:
    return {"services": ["simulation"], "service_offers": {"simulation": digest}}


async def test_a_job_moves_to_those_who_have_what_it_needs(r: Client) -> None:
    """Its place, its document and its attempts stay; submitting it again is still the same job."""
    queue = Queue(r, KEYS)
    poor, rich = (Claims(r, KEYS, name, lease_s=30) for name in ("poor", "rich"))
    poor.offers = rich.offers = {"none": Offers(), "m": HAS}
    try:
        large: dict[str, Any] = {"text": "x" * 5000, "needs": {"a": {}}}
        payloads: tuple[dict[str, Any], ...] = ({}, {"x": {"needs": {}}}, {"needs": {}}, large)
        for payload in payloads:
            sent = job("simulation", payload=payload, id=f"j{len(payload)}-{len(str(payload))}")
            await queue.submit(sent)
            claim = await poor.claim_or_wait(capable("none"))
            assert isinstance(claim, Claimed)
            needs = Needs(models=("m.ckpt",))
            assert await poor.lacks(claim, needs, "no m.ckpt here") is JobStatus.PENDING
            assert await poor.lacks(claim, needs, "no m.ckpt here") is None, "the lease went with it"
            assert isinstance(await poor.claim_or_wait(capable("none")), Waiting), "not to the same again"
            seen = await queue.get(claim.job.id)
            assert (seen.payload, seen.attempts, seen.requirements.needs) == (payload, 0, needs)
            assert seen.lane == lane_of(seen.requirements) != claim.job.lane
            assert [(h.event, h.reason) for h in seen.history][-1] == ("job_requeued", "no m.ckpt here")
            again = await queue.submit(sent)
            assert (again.created, again.same) == (False, True)
            other = await queue.submit(job("simulation", payload={**payload, "y": 1}, id=sent.id))
            assert (other.created, other.same) == (False, False)
            got = await rich.claim_or_wait(capable("m"))
            assert isinstance(got, Claimed)
            assert (got.job.id, got.job.attempts, got.job.requirements.needs) == (claim.job.id, 1, needs)
            # What a second worker lacks is added; a person's retry keeps both.
            assert await rich.lacks(got, Needs(nodes=("Fancy",)), "no Fancy here") is JobStatus.PENDING
            assert (await queue.get(sent.id or "")).requirements.needs == Needs(nodes=("Fancy",), models=("m.ckpt",))
            await queue.cancel(sent.id or "")
            await queue.retry(sent.id or "")
            assert (await queue.get(sent.id or "")).requirements.needs == Needs(nodes=("Fancy",), models=("m.ckpt",))
            await queue.cancel(sent.id or "")
    finally:
        for claims in (poor, rich):
            await claims.aclose()


async def test_a_cancelled_job_does_not_move(r: Client) -> None:
    queue, claims = Queue(r, KEYS), Claims(r, KEYS, "poor", lease_s=30)
    try:
        sent = await queue.submit(job("simulation"))
        claim = await claims.claim_or_wait(capable("none"))
        assert isinstance(claim, Claimed)
        await queue.cancel(sent.job_id)
        assert await claims.lacks(claim, Needs(models=("m.ckpt",)), "no") is JobStatus.CANCELLED
        assert (await queue.get(sent.job_id)).lane == claim.job.lane
        assert await claims.completed(claim, Result()) is None
    finally:
        await claims.aclose()


async def test_whoever_has_it_and_waits_is_woken(r: Client) -> None:
    queue = Queue(r, KEYS)
    poor, rich = (Claims(r, KEYS, name, lease_s=30) for name in ("poor", "rich"))
    poor.offers = rich.offers = {"none": Offers(), "m": HAS}
    try:
        sent = await queue.submit(job("simulation"))
        claim = await poor.claim_or_wait(capable("none"))
        assert isinstance(claim, Claimed)
        assert isinstance(await rich.claim_or_wait(capable("m")), Waiting)
        await poor.lacks(claim, Needs(models=("m.ckpt",)), "no")
        assert await rich.wait(5) is not None
        got = await rich.claim_or_wait(capable("m"))
        assert isinstance(got, Claimed) and got.job.id == sent.job_id
    finally:
        for claims in (poor, rich):
            await claims.aclose()


DRAWN = {"workflow": {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}}}}
OTHER = {"workflow": {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}}}}
ABLE = {"services": ["simulation"]}


async def _lanes_known(queue: QueuePort, claims: ClaimsPort) -> None:
    """One job went through, so nobody wonders any more who serves its lane."""
    await queue.submit(job("simulation", payload=DRAWN))
    claim = await claims.claim_or_wait(ABLE)
    assert isinstance(claim, Claimed)
    await claims.completed(claim, Result())


@pytest.mark.parametrize("kind", ["store", "twin"])
async def test_a_job_goes_to_the_waiting_worker_that_ran_its_model_last(r: Client, kind: str) -> None:
    queue: QueuePort = Queue(r, KEYS)
    names = ("long", "warm", "short")
    made: dict[str, ClaimsPort] = {name: Claims(r, KEYS, name, lease_s=30) for name in names}
    if kind == "twin":
        twin = MemoryQueue(lambda: 1_700_000_000_000)
        queue, made = twin, {name: MemoryClaims(twin, name, lease_s=30) for name in names}
    try:
        await _lanes_known(queue, made["warm"])
        await made["warm"].ran(model_key(DRAWN))
        for name in names:
            assert isinstance(await made[name].claim_or_wait(ABLE), Waiting)

        async def taken_by(payload: Mapping[str, object]) -> str:
            sent = await queue.submit(job("simulation", payload=dict(payload)))
            for name in names:
                if await made[name].wait(0.05) is not None:
                    claim = await made[name].claim_or_wait(ABLE)
                    assert isinstance(claim, Claimed) and claim.job.id == sent.job_id
                    await made[name].completed(claim, Result())
                    assert isinstance(await made[name].claim_or_wait(ABLE), Waiting)
                    return name
            raise AssertionError("nobody was woken")

        # Without a model at hand: who has waited longest; each goes to the end of those who wait.
        assert [await taken_by(DRAWN) for _ in range(3)] == ["warm", "warm", "warm"]
        assert [await taken_by(OTHER) for _ in range(2)] == ["long", "short"]
        # It is busy: nobody waits for it.
        busy = await queue.submit(job("simulation", payload=DRAWN))
        held = await made["warm"].claim_or_wait(ABLE)
        assert isinstance(held, Claimed) and held.job.id == busy.job_id
        assert await taken_by(DRAWN) == "long"
        # A fifth model pushes the first out.
        await made["warm"].completed(held, Result())
        for model in "bcde":
            await made["warm"].ran(model)
        assert isinstance(await made["warm"].claim_or_wait(ABLE), Waiting)
        assert await taken_by(DRAWN) == "short"
    finally:
        for claims in made.values():
            if isinstance(claims, Claims):
                await claims.aclose()
    assert kind == "twin" or 0 < await r.pttl(KEYS.warm("b")) <= 3_600_000


async def test_a_worker_that_died_while_it_waited_is_not_waited_for(r: Client) -> None:
    queue = Queue(r, KEYS)
    gone, there = (Claims(r, KEYS, name, lease_s=30) for name in ("gone", "there"))
    try:
        await _lanes_known(queue, gone)
        await gone.ran(model_key(DRAWN))
        for claims in (gone, there):
            assert isinstance(await claims.claim_or_wait(ABLE), Waiting)
        (key,) = [k async for k in r.scan_iter("t:waiting:*")]
        await r.zadd(key, {"gone": 1})
        await queue.submit(job("simulation", payload=DRAWN))
        assert await there.wait(5) is not None
    finally:
        for claims in (gone, there):
            await claims.aclose()


async def test_a_job_that_comes_back_wakes_those_who_do_not_know_its_lane_yet(r: Client) -> None:
    """Whoever was woken to look at a new lane claimed as another than it had waited as, and gave the job back."""
    queue = Queue(r, KEYS)
    changed, there = (Claims(r, KEYS, name, lease_s=30) for name in ("changed", "there"))
    video = {"services": ["simulation", "video"]}
    try:
        for claims in (changed, there):
            assert isinstance(await claims.claim_or_wait(video), Waiting)
        await queue.submit(job("simulation"))
        claim = await changed.claim_or_wait(ABLE)
        assert isinstance(claim, Claimed)
        back = JobError(message="not here", retryable=True)
        assert await changed.not_completed(claim, Cause.HANDED_BACK, back) is JobStatus.PENDING
        assert await there.wait(5) is not None
        assert isinstance(await there.claim_or_wait(video), Claimed)
    finally:
        for claims in (changed, there):
            await claims.aclose()
