"""What a machine's token opens: the files of the runs that its own workers hold, while they hold them, and no more."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from yarl import URL

from emp_orch.api.admission import UPLOADS_OF_ONE
from emp_orch.jobs.document.model import InputSource, Output, Result
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.store.artifacts.assets import Assets
from emp_orch.store.artifacts.run import MAX_OUTPUT_BYTES
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.queue.claim import Claimed, Claims
from support.http.outputs import chunks_of
from support.http.run_files import API_TOKEN, BODY, Lab, digest, running_lab
from support.http.stack import FLEET, Stack, eventually


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack]) -> AsyncIterator[Lab]:
    async with running_lab(new_http_stack) as lab:
        yield lab


async def test_who_holds_the_run_saves_into_it_and_reads_its_inputs(lab: Lab) -> None:
    token = lab.token("mine")
    claims, claim = await lab.claimed("mine")
    status, text = await lab.put(claim.job.id, claim.run, "a%20b%20%C3%BC.png", token=token)
    assert status == 201, text
    output = json.loads(text)["data"]
    assert (output["name"], output["size"], output["path"]) == ("a b ü.png", len(BODY), f"{claim.run}/a b ü.png")
    assert lab.stored() == [f"{claim.job.id}/{claim.run}/a b ü.png"]
    async with lab.http.post("/api/work", headers={"Authorization": f"Bearer {token}"}) as answer:
        assert answer.status == 200
    await claims.completed(claim, Result(outputs=()))
    assert (await lab.put(claim.job.id, claim.run, "late", token=token))[0] == 409
    assert lab.stored() == [f"{claim.job.id}/{claim.run}/a b ü.png"]


async def test_nobody_else_gets_in(lab: Lab) -> None:
    _, claim = await lab.claimed("mine")
    job, run = claim.job.id, claim.run
    waiting = (await lab.queue.submit(parse_submission({"service": "simulation"}))).job_id
    mine, other, gone = lab.token("mine"), lab.token("other"), lab.token("gone")
    JoinTokens(lab.stack.layout).revoke("gone")
    expired = JoinTokens(lab.stack.layout).issue(FLEET, "mine", expires_s=1)
    foreign = JoinTokens(lab.stack.layout).issue("another-fleet", "mine", expires_s=None)
    for token, where, status in (
        ("", (job, run), 401),
        ("nonsense", (job, run), 401),
        (expired, (job, run), 401),
        (foreign, (job, run), 401),
        (gone, (job, run), 401),
        (API_TOKEN, (job, run), 403),
        (other, (job, run), 409),
        (lab.token("mine-worker-0"), (job, run), 409),
        (mine, (job, f"2-{run[2:]}"), 409),
        (mine, (job, f"{run[:-1]}x"), 409),
        (mine, (job, f"{run}-kept"), 409),
        (mine, (waiting, run), 409),
        (mine, (waiting, "1-"), 409),
        (mine, ("nosuch", run), 409),
        (mine, ("..", run), 400),
        (mine, ("%2e%2e", run), 400),
        (mine, ("..%2f..", run), 400),
    ):
        told = await lab.put(*where, "a.png", token=token)
        assert told[0] == status, (where, told)
        assert (await lab.get(f"/api/work/{job}/{run}/inputs/x", other))[0] == 409
    assert lab.stored() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/jobs"),
        ("GET", "/api/monitor/state"),
        ("GET", "/api/jobs/JOB/artifacts"),
        ("POST", "/api/jobs"),
        ("POST", "/api/assets"),
        ("POST", "/api/reconcile/pause"),
        ("GET", "/api/work/../jobs"),
        ("GET", "/api/work/%2e%2e/jobs"),
        ("GET", "/api/work/JOB/RUN/outputs/a.png"),
        ("DELETE", "/api/work/JOB/RUN/outputs/a.png"),
    ],
)
async def test_nothing_else_opens(lab: Lab, method: str, path: str) -> None:
    _, claim = await lab.claimed("mine")
    url = URL(lab.stack.api + path.replace("JOB", claim.job.id).replace("RUN", claim.run), encoded=True)
    headers = {"Authorization": f"Bearer {lab.token('mine')}"}
    async with lab.http.request(method, url, headers=headers, json={}) as answer:
        assert answer.status in (401, 404, 405), await answer.text()


async def test_no_name_leads_out_of_the_run(lab: Lab) -> None:
    _, claim = await lab.claimed("mine")
    token = lab.token("mine")
    before = sorted(lab.stack.layout.root.rglob("*"))
    for name in (
        *(
            "..",
            "%2e%2e",
            "..%2fx",
            "%2e%2e%2f%2e%2e%2fx",
            "%2fetc%2fx",
            ".saving-1",
            "a%00b",
            "a%0ab",
            "a%2fb",
            "a%5cb",
        ),
        *("x" * 300, "%20", "a%20", "a."),
    ):
        status, told = await lab.put(claim.job.id, claim.run, name, token=token)
        assert status in (400, 404), (name, status, told)
    assert sorted(lab.stack.layout.root.rglob("*")) == before


async def test_only_what_was_promised_is_kept(lab: Lab) -> None:
    _, claim = await lab.claimed("mine")
    job, run, token = claim.job.id, claim.run, lab.token("mine")

    async def endless() -> AsyncIterator[bytes]:
        yield BODY

    assert (await lab.put(job, run, "a", endless(), token=token))[0] == 411
    assert (await lab.put(job, run, "a", b"something else", token=token))[0] == 400
    assert (await lab.put(job, run, "a", token=token, Content_Digest=""))[0] == 400
    assert lab.stored() == []
    for size, sent in ((MAX_OUTPUT_BYTES + 1, 10), (len(BODY) + 5, len(BODY)), (2 * 1024**2, 1024**2)):
        status = await half_sent(lab, f"/api/work/{job}/{run}/outputs/a", token, size, b"x" * sent)
        assert status == (413 if size > MAX_OUTPUT_BYTES else None)
        await eventually(_nothing(lab), "nothing in the store")


def _nothing(lab: Lab) -> Callable[[], Any]:
    async def look() -> bool:
        return lab.stored() == []

    return look


async def half_sent(lab: Lab, path: str, token: str, size: int, body: bytes) -> int | None:
    """The status of the answer to a body that ends before its time; None where there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.stack.settings.api.port)
    writer.write(
        f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n".encode()
        + f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    writer.write(body)
    await writer.drain()
    if size <= MAX_OUTPUT_BYTES:
        await eventually(_begun(lab) if len(body) >= 1024**2 else _at_once, "an upload under way")
        writer.close()
        return None
    line = (await reader.readline()).split()
    writer.close()
    return int(line[1])


def _begun(lab: Lab) -> Callable[[], Any]:
    async def look() -> bool:
        return any(Path(name).name.startswith(".saving-") for name in lab.stored())

    return look


async def _at_once() -> bool:
    return True


async def test_a_run_that_is_lost_in_the_middle_leaves_nothing(lab: Lab) -> None:
    claims, claim = await lab.claimed("mine")
    body, lost = b"x" * 1024**2, asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield body
        await lost.wait()
        yield body

    headers = {"Content-Length": str(2 * len(body)), "Content-Digest": digest(2 * body)}
    sending = asyncio.create_task(
        lab.put(
            *(claim.job.id, claim.run, "a.bin", chunks()),
            token=lab.token("mine"),
            **{k.replace("-", "_"): v for k, v in headers.items()},
        )
    )
    await eventually(_begun(lab), "an upload under way")
    await claims.cancelled(claim)
    lost.set()
    status, told = await sending
    assert status == 409 and "no worker of mine holds" in told
    assert lab.stored() == []


async def test_inputs_are_those_of_the_job_in_hand_and_of_its_customer(lab: Lab) -> None:
    content = b"a picture"
    assets = Assets(Artifacts(lab.stack.settings.artifacts), lab.redis, lab.keys)
    asset = (await assets.save("a picture", chunks_of(content), most=1024)).asset
    token = lab.token("mine")
    claims, first = await lab.claimed("mine", requirements={"customer": "a"})
    assert (await lab.put(first.job.id, first.run, "out.bin", token=token))[0] == 201
    output = Output(
        name="out.bin",
        content_type="application/octet-stream",
        size=len(BODY),
        sha256=hashlib.sha256(BODY).hexdigest(),
        path=f"{first.run}/out.bin",
    )
    await claims.completed(first, Result(outputs=(output,)))
    inputs = {
        "set/a.png": InputSource(asset=asset, size=len(content)),
        "earlier": InputSource(job=first.job.id, output="out.bin"),
        "none": InputSource(job=first.job.id, output="nosuch"),
        "far": InputSource(url="https://images.example.org/x"),
    }

    async def run_of(customer: str) -> Claimed:
        job = msgspec.structs.replace(
            parse_submission({"service": "simulation", "requirements": {"customer": customer}}), inputs=inputs
        )
        await lab.queue.submit(job)
        claims = Claims(lab.redis, lab.keys, "mine-worker-1", lease_s=30)
        lab._claims.append(claims)
        claim = await claims.claim_or_wait({"services": ["simulation"]})
        assert isinstance(claim, Claimed)
        return claim

    own, foreign = await run_of("a"), await run_of("b")

    async def got(claim: Claimed, name: str, token: str = token) -> tuple[int, bytes]:
        return await lab.get(f"/api/work/{claim.job.id}/{claim.run}/inputs/{name}", token)

    assert await got(own, "set%2Fa.png") == (200, content)
    assert await got(own, "earlier") == (200, BODY)
    assert (await got(own, "earlier", lab.token("other")))[0] == 409
    for claim, name, words in (
        (own, "none", "made no nosuch"),
        (own, "far", "has no input of that name here"),
        (own, "nosuch", "has no input of that name here"),
        (own, "..%2f..%2fsecret", "has no input of that name here"),
        (foreign, "earlier", "is not of this job's customer"),
    ):
        status, raw = await got(claim, name)
        assert status == 404 and words in raw.decode(), (name, raw)


async def test_one_machine_does_not_keep_the_others_from_saving(lab: Lab) -> None:
    _, mine = await lab.claimed("mine")
    _, others = await lab.claimed("other")
    port, token = lab.stack.settings.api.port, lab.token("mine")
    writers: list[asyncio.StreamWriter] = []

    async def begin() -> None:
        n = len(writers)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"PUT /api/work/{mine.job.id}/{mine.run}/outputs/{n} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
        )
        writer.write(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
        writers.append(writer)

    for _ in range(UPLOADS_OF_ONE):
        await begin()

    async def refused() -> bool:
        status, _ = await lab.put(mine.job.id, mine.run, "more", token=token)
        if status != 429:
            await begin()  # the one that asks may have taken the place of one of them
        return status == 429

    await eventually(refused, "no place for another")
    assert (await lab.put(others.job.id, others.run, "a", token=lab.token("other")))[0] == 201
    for writer in writers:
        writer.close()

    async def let_in() -> bool:
        return (await lab.put(mine.job.id, mine.run, "more", token=token))[0] == 201

    await eventually(let_in, "a place again")
