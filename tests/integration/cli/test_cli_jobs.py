"""`emp jobs …` and `emp submit -f` as a user types them; the queue is real, workers are reports or real ones."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emp_orch import settings
from emp_orch.cli.jobs.file import MAX_LINE
from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.jobs.document.model import JobError, Progress, Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.layout import Layout
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import NoSuchJob, Queue
from emp_orch.store.redis.client import Client, client
from support.http.stack import Producer, fleet_of
from support.redis.server import Server, job, running_server, until
from support.worker.cli import emp, write_settings
from support.worker.processes import EMP, KEYS, Bench, bench


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("valkey", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url)
    await made.flushall()
    yield made
    await made.aclose()


@pytest.fixture
def queue(r: Client) -> Queue:
    return Queue(r, KEYS)


@pytest.fixture
def folder(tmp_path: Path, server: Server, r: Client) -> Path:
    """Of a fleet called `basic`, whose Redis is empty."""
    write_settings(tmp_path, server.url)
    layout = Layout(tmp_path)
    settings.save(layout, msgspec.structs.replace(settings.load(layout), fleet="basic"))
    return tmp_path


async def run(folder: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(emp, folder, *argv, stdin=stdin)


async def typed(folder: Path, *argv: str, answer: bytes = b"") -> tuple[int, str]:
    """Exit code and output on a terminal of 80 columns, colour codes removed; `answer` is typed at the question."""

    def do() -> tuple[int, str]:
        ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}
        argv_ = [*EMP, "-C", str(folder), *argv]
        process = subprocess.Popen(argv_, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        out = b""
        while chunk := read(ours):
            out += chunk
            if answer and b"?" in chunk:
                os.write(ours, answer)
        os.close(ours)
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.decode()).replace("\r\n", "\n")
        return process.wait(30), text

    def read(fd: int) -> bytes:
        try:
            return os.read(fd, 4096)
        except OSError:  # Linux' way to say that the other end is closed
            return b""

    return await asyncio.to_thread(do)


async def end(queue: Queue, r: Client, job_id: str, *services: str, fail: bool = False) -> None:
    """A worker claims that job, which must be the next, and ends it."""
    claims = Claims(r, KEYS, "box-worker-0", lease_s=30)
    claimed = await claims.claim_or_wait({"services": list(services)})
    assert isinstance(claimed, Claimed) and claimed.job.id == job_id
    if fail:
        await claims.not_completed(claimed, Cause.FAILED, JobError(message="out of paint"))
    else:
        await claims.completed(claimed, Result())
    await claims.aclose()


# lists


async def test_list_and_its_filters(folder: Path, queue: Queue, r: Client) -> None:
    await queue.submit_many([job(id=f"a{n}", priority=n) for n in range(3)] + [job("comfyui", id="c")])
    await end(queue, r, "c", "comfyui", fail=False)
    out = (await run(folder, "jobs")).stdout.splitlines()
    assert out[0].split() == ["JOB", "STATUS", "SERVICE", "PRIO", "RUN", "AGE"]
    assert [line.split()[0] for line in out[1:]] == ["c", "a2", "a1", "a0"]
    done = await run(folder, "jobs", "list", "--service", "simulation", "--limit", "1", "--offset", "1")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["JOB", "a1"] and "of 3 jobs" in done.stderr
    as_json = json.loads((await run(folder, "jobs", "--worker", "box-worker-0", "--json")).stdout)
    assert (as_json["total"], as_json["jobs"][0]["id"], as_json["counts"]["pending"]) == (1, "c", 3)
    assert "no such jobs" in (await run(folder, "jobs", "--status", "timeout")).stderr
    done = await run(folder, "jobs", "--limit", "5", "show", "c")
    assert done.returncode == 2 and "emp jobs show …" in done.stderr


async def test_a_job_under_way_shows_how_far_it_is(folder: Path, queue: Queue, r: Client) -> None:
    await queue.submit(job(id="long"))
    claims = Claims(r, KEYS, "box-worker-0", lease_s=30)
    claimed = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claimed, Claimed)
    await claims.progress(claimed, Progress(fraction=0.25, message="KSampler 5/20"))
    assert "  progress  25% KSampler 5/20\n" in (await run(folder, "jobs", "show", "long")).stdout
    await queue.cancel("long", reason="")
    words = "cancellation asked for · 25% KSampler 5/20"
    assert f"  progress  {words}\n" in (await run(folder, "jobs", "show", "long")).stdout
    assert f"box-worker-0 · {words}\n" in (await run(folder, "jobs")).stdout
    await claims.cancelled(claimed)
    assert "progress" not in (await run(folder, "jobs", "show", "long")).stdout
    assert "cancellation asked for" not in (await run(folder, "jobs")).stdout
    await claims.aclose()


async def test_a_list_fits_a_terminal_of_80_columns(folder: Path, queue: Queue, r: Client) -> None:
    await queue.submit(job(id="x" * 24, max_retries=0))
    await end(queue, r, "x" * 24, "simulation", fail=True)
    await queue.submit(job("some-longer-service"))
    code, text = await typed(folder, "jobs")
    assert code == 0 and "out of paint" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_statuses_are_completed_by_the_shell() -> None:
    env = {**os.environ, "_EMP_COMPLETE": "bash_complete", "COMP_WORDS": "emp jobs --status p", "COMP_CWORD": "3"}
    main = "import sys; sys.argv = ['emp']; from emp_orch.cli.main import main; main()"
    done = subprocess.run([EMP[0], "-c", main], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["plain,pending"]


# lanes and explanations


async def reported(r: Client, workers: int = 3) -> None:
    producer = Producer(r, KEYS)
    fleet = fleet_of("one", "two")
    await producer.apply(fleet)
    await producer.machine(fleet, "one")
    for n in range(workers):
        await producer.worker("one", n, status=WorkerStatus.BUSY if n else WorkerStatus.IDLE, job="j" if n else None)


async def test_lanes(folder: Path, queue: Queue, r: Client) -> None:
    assert "no job waits" in (await run(folder, "jobs", "lanes")).stderr
    await reported(r)
    await queue.submit_many([job(id="a"), job(id="b"), job("video", requirements={"models": ["flux"]}, id="v")])
    lane = (await queue.get("v")).lane
    await queue.judge(lane, "no worker of the fleet could run it: it has no GPU that large")
    code, text = await typed(folder, "jobs", "lanes")
    assert code == 0 and max(len(line) for line in text.splitlines()) <= 80
    first = text.splitlines()[1]
    assert first.split()[1] == "2" and "1 idle, 2 busy" in first
    assert "video, models flux" in text and "unworkable" in text and "no GPU that large" in " ".join(text.split())
    found = json.loads((await run(folder, "jobs", "lanes", "--json", "--limit", "1")).stdout)
    assert (found["total"], found["jobs"], found["lanes"][0]["depth"]) == (2, 3, 2)
    assert found["lanes"][0]["workers"]["busy"] == 2


async def test_explain(folder: Path, queue: Queue, r: Client) -> None:
    await reported(r)
    await queue.submit_many([job(id="can"), job("video", id="cannot", requirements={"hardware": {"ram_gb": 64}})])
    done = await run(folder, "jobs", "explain", "can")
    assert "job can is pending: waits to be claimed: 3 workers can run it, 1 idle" in done.stdout
    assert "workable: 2 workers of the fleet can run it" in done.stdout
    assert "one-worker-1: could run it; it is busy with job j" in done.stdout
    assert "two-worker-0: may run it; it has not reported yet" in done.stdout
    code, text = await typed(folder, "jobs", "explain", "cannot")
    assert code == 0 and max(len(line) for line in text.splitlines()) <= 80
    words = " ".join(text.split())
    assert words.count("service 'video' is needed, the worker offers simulation, comfyui; hardware.ram_gb") >= 4
    assert "fleet unworkable: no worker of the fleet could run it" in words
    found = json.loads((await run(folder, "jobs", "explain", "cannot", "--json")).stdout)
    assert [w["standing"] for w in found["workers"]] == ["unable"] * 5
    assert "hardware.ram_gb" in found["workers"][0]["reasons"][1]


async def test_many_workers_are_told_in_groups(folder: Path, queue: Queue, r: Client) -> None:
    await reported(r, workers=40)
    await queue.submit(job(id="can"))
    out = (await run(folder, "jobs", "explain", "can")).stdout
    assert "39 workers: could run it; it is busy (one-worker-1, " in out
    assert len(out.splitlines()) < 10


# retry, cancel, purge


async def failed(queue: Queue, r: Client, *ids: str) -> None:
    for job_id in ids:
        await queue.submit(job(id=job_id, max_retries=0))
        await end(queue, r, job_id, "simulation", fail=True)


async def test_retry(folder: Path, queue: Queue, r: Client) -> None:
    await failed(queue, r, "f1", "f2", "f3")
    done = await run(folder, "jobs", "retry", "f1")
    assert (done.returncode, done.stdout) == (0, "job f1 is queued again\n")
    done = await run(folder, "jobs", "retry", "f2", "none", "f1")
    assert done.returncode == 1 and "job f2 is queued again" in done.stdout
    assert "no job 'none'" in done.stderr and "job f1 is pending and cannot be retried" in done.stderr
    done = await run(folder, "jobs", "retry", "--all-failed")
    assert done.returncode == 2 and "there is nobody to ask" in done.stderr and "-y" in done.stderr
    done = await run(folder, "jobs", "retry", "--all-failed", "--service", "other", "-y")
    assert done.returncode == 0 and "no job failed" in done.stderr
    code, text = await typed(folder, "jobs", "retry", "--all-failed", answer=b"n\n")
    assert code == 1 and "run 1 job again?" in text and (await queue.get("f3")).status is JobStatus.FAILED
    code, text = await typed(folder, "jobs", "retry", "--all-failed", answer=b"y\n")
    assert code == 0 and "1 job queued again" in text
    assert (await queue.counts())[JobStatus.PENDING] == 3
    await queue.submit(job(id="s1", payload={"extra_data": {"api_key_comfy_org": "comfyui-0123456"}}, priority=9))
    await end(queue, r, "s1", "simulation", fail=True)
    done = await run(folder, "jobs", "retry", "--all-failed", "-y")
    assert "0 jobs queued again; 1 job had API keys, which are forgotten: submit them again" in done.stdout
    done = await run(folder, "jobs", "show", "s1")
    assert "  secrets   api_key_comfy_org, forgotten at its end" in done.stdout
    for argv in ((), ("f1", "--all-failed"), ("f1", "--service", "x")):
        assert (await run(folder, "jobs", "retry", *argv)).returncode == 2


async def test_cancel(folder: Path, queue: Queue, r: Client) -> None:
    await queue.submit_many([job(id=f"s{n}") for n in range(450)] + [job("comfyui", id="c"), job("video", id="v")])
    await queue.judge((await queue.get("v")).lane, "nobody")
    done = await run(folder, "cancel", "s0", "s1", "none")
    assert done.returncode == 1 and done.stdout.count("is cancelled") == 2 and "no job 'none'" in done.stderr
    code, text = await typed(folder, "jobs", "cancel", "--service", "simulation", answer=b"y\n")
    assert (
        code == 0 and "cancel 448 jobs (pending or unworkable for simulation)?" in text and "448 jobs cancelled" in text
    )
    assert (await queue.get("c")).status is JobStatus.PENDING
    done = await run(folder, "jobs", "cancel", "--status", "unworkable", "-y")
    assert done.stdout == "1 job cancelled\n" and (await queue.get("v")).status is JobStatus.CANCELLED
    claims = Claims(r, KEYS, "box-worker-0", lease_s=30)
    assert isinstance(await claims.claim_or_wait({"services": ["comfyui"]}), Claimed)
    await claims.aclose()
    done = await run(folder, "jobs", "cancel", "--status", "assigned", "-y")
    assert done.stdout == "1 job told to stop\n" and (await queue.get("c")).cancel_requested
    assert "no job is pending" in (await run(folder, "jobs", "cancel", "--status", "pending", "-y")).stderr
    for argv in ((), ("c", "--status", "pending"), ("--status", "completed")):
        assert (await run(folder, "jobs", "cancel", *argv)).returncode == 2


async def test_purge(folder: Path, queue: Queue, r: Client) -> None:
    assert "no such jobs" in (await run(folder, "jobs", "purge", "--keep", "0", "-y")).stderr
    await failed(queue, r, *(f"f{n}" for n in range(5)))
    await queue.submit(job(id="waits"))
    done = await run(folder, "jobs", "purge", "--status", "failed", "--keep", "2")
    assert done.returncode == 2 and "nobody to ask" in done.stderr
    done = await run(folder, "jobs", "purge", "--status", "failed", "--keep", "2", "-y")
    assert done.stdout == "3 jobs forgotten\n"
    assert [j.id for j in (await queue.list()).jobs] == ["waits", "f4", "f3"]
    assert (await run(folder, "jobs", "purge", "--older-than", "1h", "-y")).stdout == "0 jobs forgotten\n"
    code, text = await typed(folder, "jobs", "purge", "--older-than", "1ms", answer=b"y\n")
    assert code == 0 and "2 failed jobs that ended more than" in " ".join(text.split()) and "2 jobs forgotten" in text
    assert [j.id for j in (await queue.list()).jobs] == ["waits"]
    for argv, words in (
        (("--older-than", "soon"), "no duration"),
        (("--older-than", "1h", "--keep", "1"), "--older-than or --keep"),
        ((), "--older-than or --keep"),
        (("--status", "pending", "--keep", "1"), "pending"),
    ):
        done = await run(folder, "jobs", "purge", *argv)
        assert done.returncode == 2 and words in done.stderr


# submit


async def test_the_shortcuts_and_what_contradicts_them(folder: Path, queue: Queue, r: Client) -> None:
    await reported(r)
    (folder / "deep.json").write_text('{"a":' * 100_000)
    argv = ("submit", "simulation", "--model", "flux", "--model", "sdxl", "--customer", "acme", "--workflow", "up")
    done = await run(folder, *argv, "--requirements", '{"positive": {"region": "eu"}}')
    assert done.stderr == ""
    asked = (await queue.get(done.stdout.strip())).requirements
    assert (asked.models, asked.customer, asked.workflow, asked.positive) == (
        ("flux", "sdxl"), "acme", "up", {"region": "eu"},
    )  # fmt: skip
    for more, words in (
        (("--requirements", '{"customer": "x"}'), "customer is given twice"),
        (("--requirements", "[1]"), "requirements: expected an object"),
        (("--id", "a", "--idempotency-key", "b"), "idempotency_key"),
        (("-f", "jobs.jsonl"), "-f stands in place of service"),
        (("--timeout", "5"), "--timeout goes with --wait"),
        (("--wait", "--timeout", "nan"), "'nan' is no duration"),
        (("--payload", "@deep.json"), "--payload: deep.json is not JSON: maximum recursion depth"),
    ):
        done = await run(folder, *argv, *more)
        assert done.returncode == 2 and words in done.stderr
    assert "say which service" in (await run(folder, "submit")).stderr


async def test_idempotency_keys_and_conflicts(folder: Path, queue: Queue) -> None:
    argv = ("submit", "simulation", "--idempotency-key", "order 4711")
    first = await run(folder, *argv, "--priority", "3")
    again = await run(folder, *argv, "--priority", "3")
    assert again.returncode == 0 and again.stdout == first.stdout and "was there already: pending" in again.stderr
    other = await run(folder, "submit", "comfyui", "--idempotency-key", "order 4711")
    assert other.returncode == 1 and "is the id of another job" in other.stderr and other.stdout == ""


async def test_a_service_that_the_fleet_does_not_have_is_told(folder: Path, queue: Queue, r: Client) -> None:
    assert (await run(folder, "submit", "simulatoin")).stderr == "", "nothing was applied: nobody knows"
    await reported(r)
    done = await run(folder, "submit", "simulatoin")
    assert done.returncode == 0 and "no service 'simulatoin' (did you mean simulation?)" in done.stderr
    done = await run(folder, "submit", "-f", "-", stdin='{"service": "video"}\n' * 3)
    assert done.returncode == 0 and done.stderr.count("no service 'video' (it has simulation, comfyui); jobs") == 1


def lines(*jobs: Any) -> str:
    return "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in jobs)


async def test_a_file_of_jobs(folder: Path, queue: Queue) -> None:
    (folder / "jobs.jsonl").write_text("\n" + lines(*({"service": "simulation", "id": f"j{n}"} for n in range(1200))))
    done = await run(folder, "submit", "-f", "jobs.jsonl")
    assert done.stdout.split() == [f"j{n}" for n in range(1200)] and "1,200 jobs queued" in done.stderr
    assert (await queue.counts())[JobStatus.PENDING] == 1200
    done = await run(folder, "submit", "-f", "jobs.jsonl", "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[7] == {"job_id": "j7", "created": False, "status": "pending"} and len(told) == 1200
    (folder / "other.jsonl").write_text(lines({"service": "video", "id": "j3"}, {"service": "video", "id": "new"}))
    done = await run(folder, "submit", "-f", "other.jsonl")
    assert done.returncode == 1 and done.stdout == "new\n"
    assert "other.jsonl:1: j3 is the id of another job; not queued" in done.stderr
    (folder / "list.json").write_text(json.dumps([{"service": "video", "id": "l1"}, {"service": "video", "id": "l2"}]))
    assert (await run(folder, "submit", "-f", "list.json")).stdout == "l1\nl2\n"


async def test_files_with_a_byte_order_mark(folder: Path, queue: Queue) -> None:
    for name, text in (
        ("a.jsonl", '{"service": "video", "id": "a"}\n'),
        ("b.json", '[{"service": "video", "id": "b"}]'),
    ):
        (folder / name).write_text(text, encoding="utf-8-sig")
        assert (await run(folder, "submit", "-f", name)).stdout == f"{name[0]}\n"
    (folder / "payload.json").write_text('{"x": 1}', encoding="utf-8-sig")
    done = await run(folder, "submit", "video", "--payload", "@payload.json")
    assert (await queue.get(done.stdout.strip())).payload == {"x": 1}


async def test_nothing_of_a_bad_file_is_queued(folder: Path, queue: Queue) -> None:
    (folder / "bad.jsonl").write_text(lines({"service": "simulation"}, "", "{broken", {"service": "", "x": 1}))
    done = await run(folder, "submit", "-f", "bad.jsonl")
    assert done.returncode == 2 and done.stdout == ""
    for words in ("bad.jsonl:3: not JSON", "bad.jsonl:4: x: there is no such field", "bad.jsonl:4: service:"):
        assert words in done.stderr
    (folder / "bad.json").write_text('[{"service": "simulation"}, 7]')
    done = await run(folder, "submit", "-f", "bad.json")
    assert done.returncode == 2 and "bad.json: jobs[1]: expected an object, found 7" in done.stderr
    (folder / "worse.jsonl").write_text(lines(*["{broken"] * 100))
    done = await run(folder, "submit", "-f", "worse.jsonl")
    assert "worse.jsonl:20:" in done.stderr and "worse.jsonl:21:" not in done.stderr and "and 80 more" in done.stderr
    (folder / "empty.jsonl").write_text("\n")
    (folder / "long.jsonl").write_text("x" * (MAX_LINE + 1) + "\n" + lines({"service": "simulation"}))
    for name, words in (("empty.jsonl", "has no jobs"), ("none.jsonl", "cannot read"), ("long.jsonl", "longer than")):
        done = await run(folder, "submit", "-f", name)
        assert done.returncode == 2 and words in done.stderr
    assert "long.jsonl:1:" in done.stderr
    assert sum((await queue.counts()).values()) == 0


async def test_a_pipe_is_queued_as_it_comes(folder: Path, queue: Queue) -> None:
    argv = [*EMP, "-C", str(folder), "submit", "-f", "-"]
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(lines({"service": "simulation", "id": "first"}).encode())
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"first\n", "its line is printed while the pipe stays open"
        process.stdin.write(lines({"service": "simulation", "id": "second"}, "{broken").encode())
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"second\n")
    assert b"standard input:3: not JSON" in err and b"2 jobs before it queued" in err
    assert (await queue.counts())[JobStatus.PENDING] == 2


# waiting, with a real worker


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = tmp_path_factory.mktemp("stage")
    with running_server("valkey", place / "redis") as server, bench(place, server) as made:
        write_settings(place, server.url)
        _, port = made.simulation()
        made.worker(f"simulation=simulation@http://127.0.0.1:{port}")
        made.ready()
        yield made


async def judged(stage: Bench, service: str, why: str) -> None:
    """Judge the lane of a service as the reconciler does."""
    r = client(stage.server.url)
    queue = Queue(r, KEYS)
    for lane in await queue.lanes():
        if lane.requirements.service == service:
            await queue.judge(lane.lane, why)
    await r.aclose()


async def test_waiting_for_a_file(stage: Bench) -> None:
    jobs = [{"service": "simulation", "id": f"w{n}", "payload": {"steps": 1}} for n in range(20)]
    (stage.folder / "good.jsonl").write_text(lines(*jobs))
    done = await run(stage.folder, "submit", "-f", "good.jsonl", "--wait")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(f"w{n} completed" for n in range(20))
    assert "20 jobs: 20 completed" in done.stderr
    mixed: list[dict[str, Any]] = [{"service": "simulation", "id": "m1", "payload": {"steps": 1}}]
    mixed += [{"service": "simulation", "id": "m2", "payload": {"fail": "no"}, "max_retries": 0}]
    done = await run(stage.folder, "submit", "-f", "-", "--wait", "--json", stdin=lines(*mixed))
    told = {found["job_id"]: found["status"] for found in map(json.loads, done.stdout.splitlines())}
    assert (done.returncode, told) == (1, {"m1": "completed", "m2": "failed"})
    done = await run(stage.folder, "submit", "-f", "-", "--wait", "--timeout", "1", stdin=lines({"service": "nowhere"}))
    assert done.returncode == 4 and "1 job of 1 had not ended after 1 s" in done.stderr


async def test_waiting_on_a_terminal_shows_id_and_progress(stage: Bench) -> None:
    argv = ("submit", "simulation", "--id", "shown", "--payload", '{"steps": 300}', "--wait")
    code, text = await typed(stage.folder, *argv)
    assert code == 0 and text.startswith("job shown\n") and "in_progress KSampler" in text
    assert "job shown completed" in text


async def test_waiting_outlasts_a_restart_of_redis(stage: Bench) -> None:
    argv = ("submit", "simulation", "--id", "restart", "--payload", '{"steps": 600}', "--wait")
    waiting = asyncio.create_task(run(stage.folder, *argv))
    r = client(stage.server.url)

    async def runs() -> bool:
        try:
            return (await Queue(r, KEYS).get("restart")).status is JobStatus.IN_PROGRESS
        except NoSuchJob:
            return False

    await until(runs)
    await r.aclose()
    stage.server.stop()
    stage.server.start()
    done = await waiting
    assert done.returncode == 0 and "job restart completed" in done.stdout, done.stderr


async def test_waiting_says_why_once(stage: Bench) -> None:
    done = await run(stage.folder, "submit", "nowhere", "--id", "why", "--wait", "--timeout", "8")
    assert done.returncode == 4 and done.stderr.startswith("job why\n")
    said = [line for line in done.stderr.splitlines() if line.startswith("job why no worker can run it")]
    assert len(said) == 1 and "service 'nowhere' is needed" in said[0]


@pytest.mark.parametrize("argv", [("video", "--wait"), ("-f", "-", "--wait")], ids=["one", "a file"])
async def test_waiting_ends_when_nobody_could_ever_run_it(stage: Bench, argv: tuple[str, ...]) -> None:
    stdin = lines({"service": "video"})
    waiting = asyncio.create_task(run(stage.folder, "submit", *argv, stdin=stdin))
    while not waiting.done():
        await judged(stage, "video", "no worker of the fleet could run it")
        await asyncio.wait([waiting], timeout=0.2)
    done = await waiting
    assert done.returncode == 1
    assert "unworkable" in done.stdout
    if argv[0] == "-f":
        assert "`emp jobs lanes` says why" in done.stderr
    if argv[0] == "video":
        assert "no worker of the fleet could run it" in done.stdout and "stays queued" in done.stderr


async def test_a_terminal_never_obeys_a_job(folder: Path, queue: Queue, r: Client) -> None:
    """What a job, its service or a worker says is shown; an escape sequence in it is not sent."""
    words = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    claims = Claims(r, KEYS, "box-worker-0", lease_s=30)
    await queue.submit(job(id="bad", max_retries=0))
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    await claims.not_completed(claim, Cause.FAILED, JobError(message=f"failed {words}", detail={"said": words}))
    await queue.submit(job(id="waits", requirements={"positive": {"said": "\u202e\u2028"}}))
    await queue.judge((await queue.get("waits")).lane, f"nobody {words}")
    said = ""
    for argv in (
        ("jobs",),
        ("jobs", "--json"),
        ("jobs", "show", "bad"),
        ("jobs", "show", "bad", "--json"),
        ("jobs", "show", words),
        ("jobs", "explain", "waits"),
        ("jobs", "lanes"),
        ("events",),
        ("events", "--json"),
        ("submit", "simulation", "--id", "bad", "--wait"),
    ):
        done = emp(folder, *argv)
        said += done.stdout
        assert all(c.isprintable() or c == "\n" for c in done.stdout + done.stderr), (argv, done)
    assert "failed" in said and "owned" in said and "nobody" in said
    await claims.aclose()
