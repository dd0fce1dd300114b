"""Two thousand jobs on eight real workers, while workers, services and Redis are killed: each job ends, and once.

The faults follow from a seed, which is printed; EMP_FAULT_SEED runs one again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emp_orch import settings
from emp_orch.control.jobs.upkeep import JobUpkeep
from emp_orch.fleet.journal.entries import Entry
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.matching.requirements import canonical
from emp_orch.layout import Layout
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.redis.client import TRANSIENT, Client, client
from support.load.faults import Faults, Fleet, faults_of, fleet, processes_of
from support.load.jobs import BATCH, LANES_OF_A_SERVICE, Kind, Load, allowed, beside, misplaced, planned
from support.redis.server import free_port, running_server, until
from support.worker.processes import EMP, KEYS

JOBS = 2_000
DEADLINE_S = 240.0


async def _unwritten(entries: list[Entry]) -> None:
    raise AssertionError(entries)


async def care(r: Client, programs: Fleet) -> None:
    """Lost jobs are looked after as the reconciler does it; for ever."""
    declared = programs.declared
    async with asyncio.TaskGroup() as group:
        caring = JobUpkeep(r, KEYS, Artifacts(programs.artifacts), group, _unwritten)
        while True:
            try:
                await caring.sweep(declared, lambda: None)  # nobody else cares for them
            except TRANSIENT:
                caring.lost()
            await asyncio.sleep(0.3)


@pytest.mark.timeout(400)
async def test_every_job_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("EMP_FAULT_SEED") or random.randrange(10**6))
    print(f"EMP_FAULT_SEED={seed}")
    rng = random.Random(seed)
    with running_server("redis", tmp_path / "redis") as server, fleet(tmp_path, server) as programs:
        r = client(server.url)
        load = Load(r, rng, planned(rng, JOBS, unnamed=BATCH))
        faults = Faults(programs, load.watch, r, load.kind_of)
        background = (programs.keep(), care(r, programs), load.watch.follow(), load.stop_begun(), load.look())
        async with beside(*background):
            began = time.monotonic()
            async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
                tasks.create_task(load.submit(), name="submit")
                tasks.create_task(faults.all_of(faults_of(rng, JOBS)), name="faults")
                await load.watch.until_ended(JOBS, within_s=DEADLINE_S)
            print(f"{JOBS} jobs in {time.monotonic() - began:.1f} s: {Counter(load.watch.ended.values())}")
            print(*(f"{n:4} × {reason}" for reason, n in load.watch.reasons.most_common()), sep="\n")
            print(f"starts: {[p.starts for p in programs.programs]}")
            await _check_ends(load)
            await _check_results(load, programs)
            await _check_users_view(load, programs)
            await _check_rest(r, programs)
            await _check_workers_still_serve_every_lane(load)
        assert faults.stolen > 0, "no frozen worker lost its job: the seed tries too little"
        assert set(programs.stop().values()) == {0}
        await _check_nothing_waits(r)
        await _check_purge(load)
        await r.aclose()
        _check_logs(programs)
    _check_nothing_is_left(programs)


async def _check_ends(load: Load) -> None:
    """Every job ended once, as its kind may; events, records and counts say the same."""
    watch, queue = load.watch, load.queue
    assert watch.wrong == []
    assert len(load.jobs) == watch.submitted == JOBS
    assert watch.ended.keys() == load.jobs.keys()
    strange = {
        job_id: (p.kind, status, load.cancelled.get(job_id))
        for job_id, p in load.jobs.items()
        if (status := watch.ended[job_id]) not in allowed(p.kind, load.cancelled.get(job_id))
    }
    assert strange == {}
    assert await queue.statuses(list(load.jobs)) == watch.ended
    counted = Counter(watch.ended.values())
    assert await queue.counts() == {s: counted[s] for s in JobStatus}
    assert {p.kind for p in load.jobs.values()} == set(Kind)
    assert counted.keys() >= {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
    assert any(reason.startswith("pending") for reason in watch.reasons), "no run was ever lost"


async def _check_results(load: Load, programs: Fleet) -> None:
    """Completed jobs have their picture, as recorded; failed ones say why in the service's words."""
    store = Artifacts(programs.artifacts)
    for job_id, plan in load.jobs.items():
        found = await load.queue.get(job_id)
        assert found.attempts <= found.max_retries + 1
        assert found.history[0].event == "job_submitted" and found.history[-1].event == f"job_{found.status}"
        ends = [h.event for h in found.history if h.event in {f"job_{s}" for s in ENDED}]
        assert len(ends) == 1, found.history
        match found.status:
            case JobStatus.COMPLETED:
                if plan.kind is Kind.SLOW:
                    assert "its service had finished the run" in found.history[-1].reason
                token = await load.r.hget(KEYS.job(job_id), "token")
                await _check_outputs(store, programs, found, run=f"{found.attempts}-{str(token)[:8]}")
            case JobStatus.FAILED:
                assert found.error is not None and found.result is None
                words = {Kind.BROKEN: "no paint for", Kind.MALFORMED: "colour"}.get(plan.kind, "")
                assert words in found.error.message
            case _:
                assert found.result is None


async def _check_outputs(store: Artifacts, programs: Fleet, found: Job, *, run: str) -> None:
    """`run`: the folder of the run that held the lease at the end; the reconciler marks what it saved itself."""
    assert found.result is not None
    (output,) = found.result.outputs
    assert output.path in (f"{run}/{output.name}", f"{run}-kept/{output.name}"), "recorded by a run without the lease"
    assert output.content_type == "image/png"
    content = b"".join([chunk async for chunk in store.read(found.id, output)])
    assert len(content) == output.size and hashlib.sha256(content).hexdigest() == output.sha256
    folder = (Layout(programs.folder).artifacts / found.id / output.path).parent
    assert [p.name for p in folder.iterdir()] == [output.name], "the recorded run left something half written"


async def _check_users_view(load: Load, programs: Fleet) -> None:
    """`emp jobs` counts what happened."""
    layout = Layout(programs.folder)
    layout.control.mkdir(parents=True)
    listen = settings.Listen(host="127.0.0.1", port=free_port())
    settings.save(
        layout,
        settings.Settings(
            fleet="f",
            redis_url=programs.server.url,
            machine_redis_url=programs.server.url,
            embedded=False,
            redis_port=0,
            prefix=KEYS.prefix,
            artifacts=programs.artifacts,
            api=listen,
            monitor=listen,
        ),
    )
    argv = [*EMP, "-C", str(programs.folder), "jobs", "--json", "--limit", "5"]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    counted = Counter(load.watch.ended.values())
    assert said["total"] == JOBS and len(said["jobs"]) == 5
    assert {s: n for s, n in said["counts"].items() if n} == {str(s): n for s, n in counted.items()}


async def _keys(r: Client, pattern: str) -> list[str]:
    return sorted([key async for key in r.scan_iter(KEYS.prefix + pattern, count=1000)])


async def _check_rest(r: Client, programs: Fleet) -> None:
    """No job is held or waits; all workers wait, and nobody else."""

    async def all_wait() -> bool:
        waiting: Any = await r.hgetall(KEYS.waiting)
        return sorted(waiting) == sorted(programs.worker_ids) and await r.zcard(KEYS.waking) == 0

    await until(all_wait, within_s=30)
    assert await r.zcard(KEYS.leases) == await r.scard(KEYS.jobs_begun) == 0
    assert await _keys(r, "lane:*") == [] and await misplaced(r) == []
    in_classes = [w for key in await _keys(r, "waiting:*") for w in await r.zrange(key, 0, -1)]
    assert sorted(in_classes) == sorted(programs.worker_ids)
    for key in await _keys(r, "wake:*"):
        assert 0 < await r.ttl(key) <= 60, key
    assert sorted(await r.hkeys(KEYS.workers)) == sorted(programs.worker_ids)


async def _check_workers_still_serve_every_lane(load: Load) -> None:
    """After all that, one more job for each lane is taken by a waiting worker; no wake was lost for good."""
    fine = [p.submission for p in load.jobs.values() if p.kind in (Kind.DRAWN, Kind.WORKFLOW)]
    of_lane = {canonical(s.requirements): s for s in fine}
    sent = [await load.queue.submit(msgspec.structs.replace(s, id=None)) for s in of_lane.values()]

    async def completed() -> bool:
        return set((await load.queue.statuses([s.job_id for s in sent])).values()) == {JobStatus.COMPLETED}

    assert len(of_lane) >= 2 * LANES_OF_A_SERVICE
    await until(completed)


async def _check_nothing_waits(r: Client) -> None:
    """Workers that were asked to stop leave nothing behind."""
    for pattern in ("workers", "workers:*", "waiting:*", "classes:waiting", "wake:*", "leases"):
        assert await _keys(r, pattern) == [], pattern


async def _check_purge(load: Load) -> None:
    """When all jobs are forgotten, Redis keeps nothing of them but the list of files to delete."""
    with_files = await load.r.scard(KEYS.jobs_files)
    assert await load.queue.purge(ENDED) >= JOBS
    for pattern in ("job:*", "payload:*", "progress:*", "jobs", "jobs:in:*", "jobs:begun", "jobs:files", "lane:*"):
        assert await _keys(load.r, pattern) == [], pattern
    assert await load.r.llen(KEYS.jobs_forgotten) == with_files > 0


def _check_logs(programs: Fleet) -> None:
    for program in programs.programs:
        for sign in ("Traceback", "never retrieved", "never awaited", "Unclosed"):
            assert sign not in program.log, f"{program.name}: …{program.log.split(sign, 1)[0][-2000:]}{sign}…"


def _check_nothing_is_left(programs: Fleet) -> None:
    assert processes_of(programs.folder) == []
    assert list(programs.temporary.iterdir()) == []
    for port in (programs.server.port, *programs.ports):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
