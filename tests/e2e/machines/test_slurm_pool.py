"""A fleet whose only machines are a pool on a real Slurm of two nodes: it grows as far as they have room, loses a node
in the middle, ends every job once, and shrinks to nothing. A member that is requeued, or whose time is over, goes in
good order.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from emp_orch.fleet.model.ids import machine_of
from support.pools.slurm import NODES, SlurmOfHosts, slurm_of_hosts
from support.stack.stack import Stack, until

JOBS = 200
# Of 0.05 s each. So many jobs must have ended before the node is killed.
STEPS = 10
EARLY = 20
ENDS = ("job_completed", "job_failed", "job_cancelled", "job_timeout")
GROWN_S = 120.0
DONE_S = 240.0
MEMBERS = "fleet:pooled:members"

FLEET = """\
version: 1
name: pooled
redis: {{url: embedded, port: {redis}}}
api: {{host: 0.0.0.0, port: {api}, token: {{env: EMP_TOKEN}}, machine_url: "http://{here}:{api}"}}
monitor: {{port: {monitor}}}
services:
  simulation:
    scale: per_machine
    command: "{python} -m emp_orch simulate --port ${{port}} --dir pictures --steps 10000"
    connector: simulation
    port: 8299
machines: {{}}
pools:
  renders:
    provider: slurm
    provider_options:
      conf: {conf}
      python: {python}
      folder: {own}
      gres: gpu:1
      time: {time}
    size: {size}
    num_gpus: 1
    services: [simulation]
    worker: {{drain_timeout: 5s}}
    scale: {{jobs_per_gpu: 1, up_after: 0s, down_after: 3s}}
    forget_after: 60s
"""


class SlurmFleet(Stack):
    def __init__(self, folder: Path, slurm: SlurmOfHosts) -> None:
        super().__init__(folder, name="pooled")
        self.slurm = slurm

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"EMP_TOKEN": "a-token-of-ours", **env})

    def apply(self, *, size: str, time: str = "10m") -> None:
        about = {"here": self.slurm.here, "conf": self.slurm.conf, "own": self.slurm.own, "python": sys.executable}
        self.file.write_text(FLEET.format(size=size, time=time, **about, **self.ports))
        self.ok("apply", "-y", "--timeout", "120")

    def boxes(self) -> dict[str, str]:
        """The members' jobs that Slurm has not ended: the state of each, with its reason."""
        listed = self.slurm.tool("squeue", "--noheader", "-o", "%j %T %N %r").splitlines()
        found = {line.split()[0].removeprefix("emp.pooled."): line.split(maxsplit=1)[1] for line in listed}
        return {member: said for member, said in found.items() if member.startswith("renders-")}

    def at_work(self, node: str = "") -> set[str]:
        return {m for m, said in self.boxes().items() if said.startswith(f"RUNNING {node}")}

    def number(self, member: str) -> str:
        """Of its job at Slurm."""
        return self.slurm.tool("squeue", "--noheader", "-n", f"emp.pooled.{member}", "-o", "%i").strip()

    def members(self) -> dict[str, dict[str, Any]]:
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as r:
            found: Any = r.hgetall(MEMBERS)
        return {member: json.loads(text) for member, text in found.items()}

    def states(self) -> dict[str, str]:
        return {member: str(about["state"]) for member, about in self.members().items()}

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ok("jobs", "--limit", "1000", "--json"))["jobs"]
        return found

    def statuses(self) -> Counter[str]:
        return Counter(str(job["status"]) for job in self.jobs())

    def served(self) -> set[str]:
        """The members that a job was given to."""
        return {str(machine_of(str(job["worker_id"]))) for job in self.jobs() if job["worker_id"]}

    def had(self, job_id: str) -> list[str]:
        """The members that the job was given to, in turn."""
        shown = json.loads(self.ok("jobs", "show", job_id, "--json"))
        return [str(machine_of(str(h["worker_id"]))) for h in shown["history"] if h["event"] == "job_assigned"]

    def in_redis(self) -> list[str]:
        """What Redis has of members: keys, and fields of those that are the fleet's."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as r:
            fields = [f for key in (MEMBERS, "machines", "workers") for f in cast(Any, r.hkeys(key))]
            return [*fields, *r.scan_iter("*renders-*")]

    def jobs_of(self, *types: str) -> Counter[str]:
        """How often each job had an event of `types`, of all that there were."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as r:
            events: Any = r.xrange("events")
        return Counter(json.loads(e["data"])["job_id"] for _, e in events if e["type"] in types)

    def journal(self, type_: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(self.ok("journal", "-n", "1000", "--json"))
        return [e for e in entries if e["type"] == type_]

    def joins(self) -> list[str]:
        """How each that joined was known."""
        return [str(e["data"]["how"]) for e in self.journal("member_joined")]

    def told(self) -> str:
        """For a failed wait: what the fleet and Slurm say."""
        log = self.slurm.folder / "slurmctld.log"
        ends = log.read_text(errors="replace")[-3000:]
        said = [self.run("status").stdout, self.run("diff").stdout, self.slurm.tool("squeue"), str(self.states()), ends]
        boxes = sorted(self.slurm.folder.glob("*-own/emp.*/logs/**/*.log"))
        said += [f"--- {path}\n{path.read_text(errors='replace')[-1500:]}" for path in boxes]
        return "\n".join([*said, self.log_ends()])

    def until(self, what: str, look: Callable[[], Any], within_s: float = GROWN_S) -> Any:
        return until(what, look, within_s=within_s, shown=self.told)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmOfHosts]:
    with slurm_of_hosts(tmp_path_factory.mktemp("s")) as made:
        yield made


@pytest.fixture
def fleet(slurm: SlurmOfHosts, tmp_path: Path) -> Iterator[SlurmFleet]:
    fleet = SlurmFleet(tmp_path / "fleet", slurm)
    try:
        yield fleet
    finally:
        fleet.run("down")
        slurm.tool("scancel", "--me", "--full", "--signal=KILL")
        until("no job at Slurm", lambda: not slurm.tool("squeue", "--noheader"))
        left = fleet.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def test_a_pool_grows_loses_a_node_and_shrinks(fleet: SlurmFleet, slurm: SlurmOfHosts) -> None:
    fleet.apply(size="0..4")
    assert fleet.boxes() == {}
    job = {"service": "simulation", "payload": {"prompt": "a fox", "steps": STEPS}, "max_retries": 3}
    lines = "".join(f"{json.dumps({**job, 'id': f'fox-{n:03}'})}\n" for n in range(JOBS))
    (fleet.root / "jobs.jsonl").write_text(lines)
    ids = fleet.ok("submit", "-f", "jobs.jsonl").split()
    assert len(ids) == JOBS

    fleet.until("two at work", lambda: len(fleet.served()) == 2 and fleet.statuses()["completed"] >= EARLY)
    # Four are wanted, and the two nodes have a GPU each: who waits is shown with Slurm's reason.
    boxes = fleet.boxes()
    assert sorted(said.split()[0] for said in boxes.values()) == ["PENDING", "PENDING", "RUNNING", "RUNNING"], boxes
    told = json.loads(fleet.ok("pools", "renders", "--json"))
    assert "no node has what it asks for free (Resources)" in json.dumps(told), told

    (lost,) = fleet.at_work("n2")
    slurm.die("n2")
    assert fleet.statuses()["completed"] < JOBS, "all had ended before the node was killed"
    # Slurm misses it, and gives the job back to its queue: the same member waits for a place.
    fleet.until("its member waits", lambda: fleet.boxes().get(lost, "").startswith("PENDING"))
    assert fleet.states()[lost] == "in"
    slurm.start_node("n2")
    fleet.until("all jobs ended", lambda: fleet.statuses() == {"completed": JOBS}, within_s=DONE_S)
    fleet.until("nobody is left", lambda: fleet.boxes() == {} and fleet.members() == {})

    assert sorted(str(job["id"]) for job in fleet.jobs()) == sorted(ids)
    assert fleet.jobs_of(*ENDS) == dict.fromkeys(ids, 1)
    # Only what the dead node held was given to a second worker: nobody was removed at work.
    again = fleet.jobs_of("job_requeued")
    assert all(fleet.had(job)[:-1] == [lost] for job in again), {job: fleet.had(job) for job in again}
    assert fleet.journal("preempted") == []
    # What a box said last may have come after it was removed: that is forgotten once it is old.
    fleet.until("nothing of them in Redis", lambda: not fleet.in_redis())
    fleet.until_in_sync()
    # Nothing of the boxes is on the nodes.
    for node in NODES:
        fleet.until(f"no box on {node}", partial(_is_free, slurm, node))
        assert list((slurm.folder / f"{node}-own").iterdir()) == []


def _is_free(slurm: SlurmOfHosts, node: str) -> bool:
    """Whether nothing runs on a node that is not Slurm's own."""
    for pid in slurm.running_on(node):
        command = Path(f"/proc/{pid}/cmdline")
        text = command.read_bytes().replace(b"\0", b" ").decode(errors="replace") if command.exists() else ""
        if text and not Path(text.split()[0]).name.startswith("slurm"):
            return False
    return True


def test_a_member_that_is_requeued_comes_back_as_itself(fleet: SlurmFleet, slurm: SlurmOfHosts) -> None:
    fleet.apply(size="1..1")
    fleet.until("a member ready", lambda: "1 ready" in fleet.ok("pools", "renders"))
    (member,) = fleet.states()
    joined = fleet.members()[member]["joined_ms"]
    slurm.tool("scontrol", "requeue", fleet.number(member))
    fleet.until("it left in good order", lambda: fleet.journal("preempted"))
    fleet.until("it is in again", lambda: "came back" in fleet.joins() and fleet.states() == {member: "in"})
    # Again, before it could say a word: the next waits until the one before counts as gone.
    slurm.tool("scontrol", "requeue", fleet.number(member))
    fleet.until("it waits", lambda: fleet.boxes()[member].startswith("PENDING"))
    fleet.until("it is ready", lambda: fleet.at_work() and "1 ready" in fleet.ok("pools", "renders"))
    assert fleet.members()[member]["joined_ms"] == joined
    done = fleet.run("submit", "simulation", "--payload", '{"steps": 1}', "--wait", "--timeout", "60s")
    assert done.returncode == 0, done.stderr + fleet.told()
    assert {e["data"]["machine_id"] for e in fleet.journal("preempted")} == {member}
    assert fleet.joins()[-1:] == ["came back"]
    assert len(fleet.journal("member_asked")) == 1 and fleet.journal("member_forgotten") == []


def test_before_its_time_is_over_a_member_gives_its_job_back(fleet: SlurmFleet) -> None:
    fleet.apply(size="0..1", time="2m")
    job = fleet.ok("submit", "simulation", "--payload", '{"steps": 3000}', "--retries", "0").strip()
    (first,) = fleet.until("it is at work", fleet.served)
    (told,) = fleet.until("it was told", lambda: fleet.journal("preempted"), within_s=180.0)
    assert (told["data"]["machine_id"], told["data"]["returned"]) == (first, 1), told
    fleet.until("another does it", lambda: len(fleet.had(job)) == 2)
    assert fleet.had(job)[1] != first
    fleet.ok("cancel", job)
    fleet.until("nobody is left", lambda: fleet.boxes() == {} and fleet.members() == {})
