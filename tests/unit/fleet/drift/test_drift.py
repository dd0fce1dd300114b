"""State → drift and plan, as people read them. Every kind of drift stands here with its remedy and its reason."""

# ruff: noqa: E501  # the texts stand as they are printed

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.desired.machines import config_hash
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.liveness import Visibility
from emp_orch.fleet.drift.table import BOOT_GRACE_MS, Desired, Kind, diff
from emp_orch.fleet.model.fleet import MachineId, MemberState, PoolName, ProgramName, WorkerId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import (
    ConnectorReport,
    ConnectorStatus,
    ContainerEnd,
    ContainerState,
    DamagedKey,
    GpuReport,
    Instance,
    InstanceState,
    MachineStatus,
    Malformed,
    Observed,
    Occupant,
    ProgramEnd,
    ProgramReport,
    ProgramState,
    WorkerStatus,
)
from emp_orch.fleet.model.package import Build, WorkerPackage
from emp_orch.fleet.model.pools import Box, BoxState, SeenPool
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.plan import operations
from support.fleet.fleets import COMFYUI, NOW_MS, OLD_MS, SIMULATION, fleet, look, one, report, running, wish, worker
from support.fleet.members import member, wanted

M = one([SIMULATION, COMFYUI])
# As M was before: without comfyui.
OLD_M = one([SIMULATION])
W = worker_id(M.id, 0)
BOX = one([], num_gpus=0, runtime=RuntimeKind.EXTERNAL)
HASHES = {config_hash(M): "NEW", config_hash(OLD_M): "OLD", config_hash(BOX): "BOX"}


def minutes(desired: Desired, observed: Observed) -> str:
    """Drift line by line, then the plan; digests by name."""
    drifts = diff(desired, observed)
    lines = [f"{d.kind} {d.subject}: wants {d.desired}, is {d.observed}; {d.cause}" for d in drifts]
    text = "\n".join([*lines, operations.text(operations.plan(desired, drifts))]).strip("\n")
    for digest, name in HASHES.items():
        text = text.replace(digest, name)
    return text.replace(f"port {COMFYUI.port} ", "port PORT ")


def instance(state: InstanceState, detail: str = "", started_ms: int = OLD_MS) -> Observed:
    """M as it should be, but its runtime says this."""
    return look(M, instances={M.id: Instance(machine_id=M.id, state=state, detail=detail, started_ms=started_ms)})


def silent(seconds: float | None, **changes: Any) -> Observed:
    """M runs and was last heard so long ago; None: never."""
    seen = {} if seconds is None else {M.id: report(M, seen_ms=NOW_MS - int(seconds * 1000))}
    return look(M, **{"machines": seen, **changes})


def says(m: DesiredMachine = M, **changes: Any) -> Observed:
    """M reports with these changes."""
    return look(M, machines={M.id: report(m, **changes)})


def program(name: str, state: ProgramState | None, **changes: Any) -> dict[ProgramName, ProgramReport]:
    """The programs of M, one of them changed; None: it is not there."""
    programs = report(M).report.programs
    if state is None:
        return {n: p for n, p in programs.items() if n != name}
    return {**programs, ProgramName(name): ProgramReport(**{"state": state, "since_ms": OLD_MS, **changes})}


def has(name: str, state: ProgramState | None, **changes: Any) -> Observed:
    return says(programs=program(name, state, **changes))


def worker_says(seconds: float, **changes: Any) -> Observed:
    return look(M, workers={W: worker(M, 0, seen_ms=NOW_MS - int(seconds * 1000), **changes)})


def unreadable(kind: str, subject: str, seconds: float, **changes: Any) -> Observed:
    bad = Malformed(kind=kind, id=subject, error="Expected `int`, got `str`", seen_ms=NOW_MS - int(seconds * 1000))
    of: dict[str, Any] = {"machines": {}} if kind == "machine" else {"workers": {}}
    return look(M, **{**of, "malformed": (bad,), **changes})


S = ProgramState
UP = wish(M, generation=1)
PRUNE = wish(M, prune=True)
G2 = wish(M, generation=2)
NOBODY: dict[str, Any] = {"instances": {}, "answered": ()}
SURPLUS = one([], machine_id="old", num_gpus=0)
RENDERS = PoolName("renders")
MEMBERS = wanted(member())
ASKED_FOR = wanted(member(state=MemberState.EXPECTED, joined_ms=0))
BOX_7F3K = MEMBERS.machines[member().id]
ROWS: dict[str, tuple[Desired, Observed]] = {}


def quiet(seconds: float, **changes: Any) -> Observed:
    """The member was last heard so long ago."""
    seen = {BOX_7F3K.id: report(BOX_7F3K, seen_ms=NOW_MS - int(seconds * 1000))}
    return look(machines=seen, **{**NOBODY, **changes})


def its_box(state: BoxState, words: str) -> Observed:
    """What its engine says of the member's box, long after that was asked for."""
    box = Box(member_id=BOX_7F3K.id, state=state, words=words)
    return look(pools={RENDERS: SeenPool(boxes=(box,))}, **NOBODY)


def row(name: str, desired: Desired, observed: Observed) -> None:
    assert name not in ROWS
    ROWS[name] = (desired, observed)


row("all is well", UP, look(M))
# the machine as a whole
row("never started", UP, look(M, machines={}, workers={}, instances={}))
row("supervisord killed", UP, instance(InstanceState.GONE, "its supervisord (pid 7) is gone"))
row("supervisord killed, its report fresh", UP, instance(InstanceState.GONE))
row(
    "in a container that was made for another image",
    UP,
    look(M, instances={M.id: structs.replace(running(M), container="0123456789abcdef", host="gpu-a")}),
)
DIED = ContainerEnd(at_ms=NOW_MS - 1_000, exit_code=1)


def boxed(started_ms: int = OLD_MS, **said: Any) -> Instance:
    """M runs, and its engine says this of it."""
    engine = ContainerState(**{"name": "c0ffee", "word": "running", **said})
    return Instance(machine_id=M.id, state=InstanceState.RUNNING, started_ms=started_ms, engine=engine)


def box(*, heard: bool = False, **said: Any) -> Observed:
    return look(M, **{"instances": {M.id: boxed(**said)}, **({} if heard else {"machines": {}, "workers": {}})})


row("its container is paused, and its last report is fresh", UP, box(heard=True, word="paused"))
row("its container is cut off, and its last report is fresh", UP, box(heard=True, cut_off="emp-f_default"))
row(
    "its container ends at once, again and again",
    UP,
    box(word="restarting", ends=(DIED,) * 4, restarts=4, lived_ms=300, lines=("ImportError: no torch",)),
)
row(
    "the same, seen while it runs for a moment",
    UP,
    box(started_ms=NOW_MS - 500, ends=(DIED,) * 4, restarts=4, lines=("ImportError: no torch",)),
)
row("its container ended once, and is started again", UP, box(word="restarting", ends=(DIED,), restarts=1))
row(
    "its container has just been started again after it ran out of memory",
    UP,
    box(started_ms=NOW_MS - 500, ends=(DIED,), restarts=1, out_of_memory=True, memory_limit=2**29, lines=("loading",)),
)
row("it is silent, and its engine calls it unhealthy", UP, box(unhealthy=True))
row(
    "it is heard, and ended often before",
    UP,
    look(M, instances={M.id: structs.replace(boxed(ends=(DIED,) * 4, restarts=4), boot_id="1-1")}),
)
row("just started", UP, silent(None, instances={M.id: running(M, NOW_MS - BOOT_GRACE_MS + 1)}))
row("started long enough ago", UP, silent(None, instances={M.id: running(M, NOW_MS - BOOT_GRACE_MS)}))
row("just started, the former life's report is fresh", UP, look(M, instances={M.id: running(M, NOW_MS - 3_000, "2-2")}))
row(
    "another agent has written its report since",
    UP,
    look(M, machines={M.id: report(M, seen_ms=NOW_MS - 2_000, boot_id="2-2", host="elsewhere")}),
)
row(
    "another agent had written its report, and is silent too",
    UP,
    look(M, machines={M.id: report(M, seen_ms=NOW_MS - 11_000, boot_id="2-2", host="elsewhere")}),
)
row(
    "started long enough ago, a former life's report is recent all the same",
    structs.replace(UP, stale_after_ms=120_000),
    look(
        M,
        machines={M.id: report(M, seen_ms=NOW_MS - BOOT_GRACE_MS, boot_id="2-2")},
        instances={M.id: running(M, NOW_MS - BOOT_GRACE_MS)},
    ),
)
row("silent, for as long as is allowed", UP, silent(10))
row("silent for too long", UP, silent(11))
row("silent, and no runtime answers", UP, silent(11, **NOBODY))
row(
    "silent, and its runtime does not know",
    UP,
    silent(
        11, instances={M.id: Instance(machine_id=M.id, state=InstanceState.UNKNOWN, detail="Docker does not answer")}
    ),
)
row("never heard, and its runtime does not know", UP, silent(None, **NOBODY))
row("heard, and its runtime does not know", UP, instance(InstanceState.UNKNOWN))
# a box that emp can neither see nor start
row("external, never heard", wish(BOX), look(BOX, machines={}, instances={}))
row(
    "external, never heard, and its folder of another runtime is here",
    wish(BOX),
    look(machines={}, instances={BOX.id: Instance(machine_id=BOX.id, state=InstanceState.GONE)}),
)
row("external, silent", wish(BOX), look(BOX, machines={BOX.id: report(BOX, seen_ms=NOW_MS - 20_000)}, instances={}))
SHUT_OUT = look(BOX, machines={BOX.id: report(BOX, seen_ms=NOW_MS - 20_000)}, instances={})
row("external, shut out", wish(BOX), structs.replace(SHUT_OUT, shut_out=frozenset({BOX.id})))
# members of pools
row("a member, heard", MEMBERS, look(BOX_7F3K, **NOBODY))
row("a member that has just joined", wanted(member(joined_ms=NOW_MS - 29_000)), look(**NOBODY))
row("a member that never said anything", wanted(member(joined_ms=NOW_MS - 30_000)), look(**NOBODY))
row("a member, silent", MEMBERS, quiet(599))
row("a member, silent for too long", MEMBERS, quiet(600))
row("a member, silent while nobody could be heard", MEMBERS, quiet(600, observing_since_ms=NOW_MS - 9_000))
row(
    "a member, silent for too long, of which that is not known", MEMBERS, quiet(600, observing_since_ms=NOW_MS - 99_000)
)
row("a member, heard in the future", MEMBERS, quiet(-3_600))
row("a member, shut out", MEMBERS, quiet(20, shut_out=frozenset({BOX_7F3K.id})))
row("a member that left", wanted(member(state=MemberState.LEFT, why="its spot ended")), look(**NOBODY))
row("a member that is awaited", ASKED_FOR, look(now_ms=OLD_MS + 599_000, **NOBODY))
row("a member that never came", ASKED_FOR, look(now_ms=OLD_MS + 600_000, **NOBODY))
row("a member whose box waits for a place", ASKED_FOR, its_box(BoxState.PENDING, "no node has a free gpu"))
row("a member whose box never joined", ASKED_FOR, its_box(BoxState.ENDED, "no such image"))
row(
    "a member of whose engine nothing is known", ASKED_FOR, look(pools={RENDERS: SeenPool(error="timed out")}, **NOBODY)
)
row("who was a member, heard", wanted(), look(BOX_7F3K, **NOBODY))
row("who was a member, silent", wanted(), quiet(20))
row("a machine here of the name that a member could have", wanted(), look(one([], machine_id="renders-1", num_gpus=0)))
row("a member of a pool that is named no more", wanted(member(), of=fleet(())), look(BOX_7F3K, **NOBODY))
row("the same, pruning", wanted(member(), of=fleet(()), prune=True, allow_empty=True), look(BOX_7F3K, **NOBODY))

row("external, heard", wish(BOX), look(BOX, instances={}))
row(
    "external, behind",
    wish(BOX, generation=2),
    look(BOX, machines={BOX.id: report(BOX, config_hash="OLD")}, instances={}),
)
row("another configuration", G2, says(OLD_M))
row("another configuration while it starts", G2, says(OLD_M, status=MachineStatus.STARTING))
row("the same configuration, an older generation", G2, look(M))
row("a newer generation than desired", UP, says(generation=3))
row("starting", UP, says(status=MachineStatus.STARTING, programs=program("comfyui-gpu0", S.STOPPED, since_ms=0)))
row("configuring", UP, says(status=MachineStatus.CONFIGURING, programs=program("comfyui-gpu0", S.STARTING)))
row(
    "starting, a program was just stopped",
    UP,
    says(status=MachineStatus.STARTING, programs=program("comfyui-gpu0", S.STOPPED, since_ms=NOW_MS - 5_000)),
)
row(
    "starting, a program was stopped long ago",
    UP,
    says(status=MachineStatus.STARTING, programs=program("comfyui-gpu0", S.STOPPED)),
)
row(
    "stuck with an error",
    UP,
    says(status=MachineStatus.CONFIGURING, error="not up: comfyui-gpu0", programs=program("comfyui-gpu0", S.FATAL)),
)
row("the error has gone, ready not yet said", UP, says(status=MachineStatus.CONFIGURING, error="not up: comfyui-gpu0"))
row("stopping", UP, says(status=MachineStatus.STOPPING))
row("unreadable, and living", UP, unreadable("machine", M.id, 2))
row("unreadable, and silent", UP, unreadable("machine", M.id, 20))
row("unreadable, and silent, and its runtime does not know", UP, unreadable("machine", M.id, 20, **NOBODY))
row("unreadable, and not running", UP, unreadable("machine", M.id, 2, instances={}))
# programs
row("program not known to supervisord", UP, has("comfyui-gpu0", None))
row("program gave up", UP, has("comfyui-gpu0", S.FATAL, detail="Exited too quickly"))
END = ProgramEnd(at_ms=NOW_MS, pid=7, exit_status=3, lived_ms=1_200, lines=("Traceback:", "ImportError: torch"))
KILLED = ProgramEnd(at_ms=NOW_MS, pid=7, signal="SIGKILL", lived_ms=3_600_000)
row("program gave up, its last end known", UP, has("comfyui-gpu0", S.FATAL, last_end=END))
row("program in backoff, its last end known", UP, has("comfyui-gpu0", S.BACKOFF, last_end=KILLED))
row("program starting, its last end known", UP, has("comfyui-gpu0", S.STARTING, last_end=END))
row("program stopped, its last end known", UP, has("simulation", S.STOPPED, last_end=KILLED))
row("program exited, its last end known", UP, has("simulation", S.EXITED, exit_status=3, last_end=END))
row(
    "program answers nothing yet, its last end known",
    UP,
    has("comfyui-gpu0", S.RUNNING, detail="refused", last_end=END),
)
row(
    "program still starting after its time",
    UP,
    has("comfyui-gpu0", S.RUNNING, healthy=False, never_healthy=True, detail="refused"),
)
row("program is well, its last end known", UP, has("comfyui-gpu0", S.RUNNING, healthy=True, last_end=END))
row("worker gave up, its last end known", UP, has("redis-worker-gpu0", S.FATAL, last_end=END))
row("program gave up, no reason", UP, has("simulation", S.FATAL))
FLAPPED = tuple(NOW_MS - ago for ago in (119_000, 60_000, 30_000, 5_000, 1_000))
row("program flapping", UP, has("simulation", S.RUNNING, ends_ms=FLAPPED))
row("program flapping, its last end known", UP, has("simulation", S.RUNNING, ends_ms=FLAPPED, last_end=END))
row("program flapping, in backoff", UP, has("simulation", S.BACKOFF, ends_ms=FLAPPED))
row("program that flapped a while ago", UP, has("simulation", S.STARTING, ends_ms=(NOW_MS - 120_000, *FLAPPED[1:])))
row("program flapping, stopped since", UP, has("simulation", S.STOPPED, ends_ms=FLAPPED))
row("port taken", UP, has("comfyui-gpu0", S.FATAL, port_taken_by="pid 7 (nginx)"))
row("port taken, healthy all the same", UP, has("simulation", S.RUNNING, healthy=True, port_taken_by="pid 7 (nginx)"))
row("set-up step failed", UP, has("comfyui-installer", S.EXITED, exit_status=3))
row("set-up step failed, its last end known", UP, has("comfyui-installer", S.EXITED, exit_status=3, last_end=END))
row("set-up step running", UP, has("comfyui-installer", S.RUNNING))
row("program stopped", UP, has("simulation", S.STOPPED))
row("program exited", UP, has("simulation", S.EXITED, exit_status=1))
row("program's state unknown to supervisord", UP, has("simulation", S.UNKNOWN))
row(
    "program stopped, its set-up too",
    UP,
    says(
        programs={
            **program("comfyui-gpu0", S.STOPPED),
            ProgramName("comfyui-installer"): ProgramReport(state=S.EXITED, exit_status=1),
        }
    ),
)
row("program starting", UP, has("simulation", S.STARTING))
row("program in backoff", UP, has("simulation", S.BACKOFF, detail="can't find command"))
row("program stopping", UP, has("simulation", S.STOPPING))
row("not probed yet", UP, has("comfyui-gpu0", S.RUNNING, healthy=None))
row("unhealthy", UP, has("comfyui-gpu0", S.RUNNING, healthy=False, detail="/system_stats answered 500"))
row("unhealthy, no reason", UP, has("comfyui-gpu0", S.RUNNING, healthy=False))
row("program too many", UP, has("comfyui-gpu1", S.RUNNING))
row(
    "several programs, one send",
    UP,
    says(
        programs={
            n: p for n, p in program("comfyui-gpu1", S.RUNNING).items() if n not in ("simulation", "comfyui-gpu0")
        }
    ),
)
# workers
row("worker never reported", UP, look(M, workers={}))
row(
    "worker's program just started",
    UP,
    look(
        M,
        workers={},
        machines={M.id: report(M, programs=program("redis-worker-gpu0", S.RUNNING, since_ms=NOW_MS - 5_000))},
    ),
)
row("worker silent", UP, worker_says(11))
row(
    "worker silent, its program just restarted",
    UP,
    look(
        M,
        workers={W: worker(M, 0, seen_ms=NOW_MS - 20_000)},
        machines={M.id: report(M, programs=program("redis-worker-gpu0", S.RUNNING, since_ms=NOW_MS - 5_000))},
    ),
)
row("worker of another machine", UP, worker_says(1, machine_id=MachineId("unknown")))
row(
    "worker heard in the second of its program's restart, and not since",
    UP,
    look(
        M,
        workers={W: worker(M, 0, seen_ms=NOW_MS - 4_500, pid=6)},
        machines={M.id: report(M, programs=program("redis-worker-gpu0", S.RUNNING, since_ms=NOW_MS - 5_000, pid=7))},
    ),
)
row(
    "worker of another process than its program, which runs for long",
    UP,
    worker_says(1, pid=6),
)
row(
    "worker of another machine, its program just restarted",
    UP,
    look(
        M,
        workers={W: worker(M, 0, seen_ms=NOW_MS - 6_000, machine_id="unknown")},
        machines={M.id: report(M, programs=program("redis-worker-gpu0", S.RUNNING, since_ms=NOW_MS - 5_000))},
    ),
)
row("worker initializing", UP, worker_says(1, status=WorkerStatus.INITIALIZING))
row("worker unreadable, and living", UP, unreadable("worker", W, 2))
row("worker unreadable, and silent", UP, unreadable("worker", W, 20))
row(
    "worker with a program in trouble",
    UP,
    look(M, workers={}, machines={M.id: report(M, programs=program("redis-worker-gpu0", S.STOPPED))}),
)
ghost = {WorkerId("m-worker-7"): worker(M, 7, seen_ms=NOW_MS - 11_000)}
alive = {WorkerId("m-worker-7"): worker(M, 7)}
row("worker too many, silent", UP, look(M, workers={W: worker(M, 0), **ghost}))
row("worker too many, living", UP, look(M, workers={W: worker(M, 0), **alive}))
row(
    "worker too many, unreadable and living",
    UP,
    look(M, malformed=(Malformed(kind="worker", id="m-worker-7", error="bad", seen_ms=NOW_MS),)),
)
row(
    "worker too many, unreadable and silent",
    UP,
    look(M, malformed=(Malformed(kind="worker", id="m-worker-7", error="bad", seen_ms=OLD_MS),)),
)
# machines that nobody names
both = look(M, SURPLUS)
row("machine too many", UP, both)
row("machine too many, pruning", PRUNE, both)
row("machine too many, not reporting", PRUNE, structs.replace(both, machines={M.id: report(M)}))
row(
    "machine too many, long gone",
    PRUNE,
    structs.replace(
        both, instances={M.id: running(M)}, machines={M.id: report(M), SURPLUS.id: report(SURPLUS, seen_ms=OLD_MS)}
    ),
)
row("machine too many that no runtime knows", PRUNE, structs.replace(both, instances={M.id: running(M)}))
row(
    "machine too many, unreadable and silent",
    PRUNE,
    look(M, malformed=(Malformed(kind="machine", id="old", error="bad", seen_ms=OLD_MS),)),
)
row(
    "machine too many, stopped",
    PRUNE,
    look(M, instances={M.id: running(M), SURPLUS.id: Instance(machine_id=SURPLUS.id, state=InstanceState.GONE)}),
)
row("machine too many, stopped, not pruning", UP, ROWS["machine too many, stopped"][1])
row(
    "machine too many, with its workers",
    UP,
    look(
        M,
        one([], machine_id="old"),
    ),
)

# Each line: kind, subject, what is wanted, what is, why; then the plan.
EXPECTED = {
    "in a container that was made for another image": """
container-outdated m: wants no container, is container 0123456789abcdef; its runtime is another
1. restart machine m  (recreate): its runtime is another  [emp.yaml:m]""".strip(),
    "all is well": "",
    "never started": """\
machine-missing m: wants running, is not running; it was never started
1. start machine m  (start): it was never started  [emp.yaml:m]
""",
    "supervisord killed": """\
machine-missing m: wants running, is not running; its supervisord (pid 7) is gone
1. start machine m  (start): its supervisord (pid 7) is gone  [emp.yaml:m]
""",
    "supervisord killed, its report fresh": """\
machine-missing m: wants running, is not running; its supervisord does not run
1. start machine m  (start): its supervisord does not run  [emp.yaml:m]
""",
    "its container is paused, and its last report is fresh": """\
container-paused m: wants running, is paused; somebody paused its container c0ffee: nothing in it runs on
1. start machine m  (start): somebody paused its container c0ffee: nothing in it runs on  [emp.yaml:m]
""",
    "its container is cut off, and its last report is fresh": """\
container-cut-off m: wants in network emp-f_default, is cut off; somebody took its container c0ffee out of network emp-f_default: it reaches nobody
1. start machine m  (start): somebody took its container c0ffee out of network emp-f_default: it reaches nobody  [emp.yaml:m]
""",
    "its container ends at once, again and again": """\
container-looping m: wants running, is restarting (exit 1); its container c0ffee ended by itself 4 times within 2 min: it ended with exit 1, 0.3 s after its start; last words: ImportError: no torch
""",
    "the same, seen while it runs for a moment": """\
container-looping m: wants running, is running; its container c0ffee ended by itself 4 times within 2 min: it ended with exit 1; last words: ImportError: no torch
""",
    "its container ended once, and is started again": """\
machine-booting m: wants reporting, is restarting (exit 1); its container c0ffee ended with exit 1; its engine starts it again; it said nothing
""",
    "its container has just been started again after it ran out of memory": """\
machine-booting m: wants reporting, is not reporting yet; its container c0ffee was started again by its engine after it ran out of memory (limits.memory is 512 MiB, and it used that; exit 1); last words: loading
""",
    "it is silent, and its engine calls it unhealthy": """\
machine-stale m: wants reporting, is not reporting yet; its engine calls its container c0ffee unhealthy
1. restart machine m  (restart): its engine calls its container c0ffee unhealthy  [emp.yaml:m]
""",
    "it is heard, and ended often before": "",
    "just started": """\
machine-booting m: wants reporting, is not reporting yet; its supervisord has just been started
""",
    "started long enough ago": """\
machine-stale m: wants reporting, is not reporting yet; its agent hangs or cannot reach Redis
1. restart machine m  (restart): its agent hangs or cannot reach Redis  [emp.yaml:m]
""",
    "just started, the former life's report is fresh": """\
machine-booting m: wants reporting, is last report 0 s ago; its supervisord has just been started
""",
    "another agent has written its report since": """\
machine-conflict m: wants one agent, is also 2-2 on elsewhere; two agents report as this machine; stop the one that does not belong
""",
    "another agent had written its report, and is silent too": """\
machine-stale m: wants reporting, is last report 11 s ago; its agent hangs or cannot reach Redis
1. restart machine m  (restart): its agent hangs or cannot reach Redis  [emp.yaml:m]
""",
    "started long enough ago, a former life's report is recent all the same": """\
machine-stale m: wants reporting, is last report 30 s ago; its agent hangs or cannot reach Redis
1. restart machine m  (restart): its agent hangs or cannot reach Redis  [emp.yaml:m]
""",
    "silent, for as long as is allowed": "",
    "silent for too long": """\
machine-stale m: wants reporting, is last report 11 s ago; its agent hangs or cannot reach Redis
1. restart machine m  (restart): its agent hangs or cannot reach Redis  [emp.yaml:m]
""",
    "silent, and no runtime answers": """\
machine-unreachable m: wants reporting, is last report 11 s ago; no runtime here can tell whether it runs
""",
    "silent, and its runtime does not know": """\
machine-unreachable m: wants reporting, is last report 11 s ago; Docker does not answer
""",
    "never heard, and its runtime does not know": """\
machine-unreachable m: wants reporting, is not reporting yet; no runtime here can tell whether it runs
""",
    "heard, and its runtime does not know": "",
    "external, never heard": """\
machine-away m: wants reporting, is not reporting yet; it has not joined, or was stopped in good order
""",
    "external, never heard, and its folder of another runtime is here": """\
machine-away m: wants reporting, is not reporting yet; it has not joined, or was stopped in good order
""",
    "external, silent": """\
machine-away m: wants reporting, is last report 20 s ago; its box is off, or cannot reach Redis; emp cannot start it
""",
    "external, shut out": """\
machine-away m: wants reporting, is last report 20 s ago; \
emp shut it out (`emp machine revoke`), and it may not join with what it was given
""",
    "a member, heard": "",
    "a member that has just joined": """\
machine-booting renders-7f3k: wants reporting, is not reporting yet; its box has just joined
""",
    "a member that never said anything": """\
member-silent renders-7f3k: wants reporting, is not reporting yet; its box is off, or cannot reach the API; after 600 s of silence it is forgotten
""",
    "a member, silent": """\
member-silent renders-7f3k: wants reporting, is last report 599 s ago; its box is off, or cannot reach the API; after 600 s of silence it is forgotten
""",
    "a member, silent for too long": """\
member-silent renders-7f3k: wants reporting, is last report 600 s ago; its box is off, or cannot reach the API; after 600 s of silence it is forgotten
1. forget member renders-7f3k  (remove): last report 600 s ago: its box is off, or cannot reach the API; after 600 s of silence it is forgotten  [emp.yaml:renders]
""",
    "a member, silent while nobody could be heard": """\
member-silent renders-7f3k: wants reporting, is last report 600 s ago; nobody could be heard until just now
""",
    "a member, silent for too long, of which that is not known": """\
member-silent renders-7f3k: wants reporting, is last report 600 s ago; its box is off, or cannot reach the API; after 600 s of silence it is forgotten
""",
    "a member, heard in the future": """\
member-silent renders-7f3k: wants reporting, is last report -3600 s ago; its box is off, or cannot reach the API; after 600 s of silence it is forgotten
""",
    "a member, shut out": """\
member-silent renders-7f3k: wants reporting, is last report 20 s ago; emp shut it out, and it may not join with what it was given
1. forget member renders-7f3k  (remove): last report 20 s ago: emp shut it out, and it may not join with what it was given  [emp.yaml:renders]
""",
    "a member that left": """\
member-silent renders-7f3k: wants reporting, is left in good order; its spot ended
1. forget member renders-7f3k  (remove): left in good order: its spot ended  [emp.yaml:renders]
""",
    "a member that is awaited": "",
    "a member that never came": """\
member-silent renders-7f3k: wants reporting, is never joined; it was asked for 600 s ago, and its box never joined
1. forget member renders-7f3k  (remove): never joined: it was asked for 600 s ago, and its box never joined  [emp.yaml:renders]
""",
    "a member whose box waits for a place": "",
    "a member whose box never joined": """\
member-silent renders-7f3k: wants reporting, is never joined; it was asked for 3600 s ago, and its box never joined; its engine says: ended, no such image
1. forget member renders-7f3k  (remove): never joined: it was asked for 3600 s ago, and its box never joined; its engine says: ended, no such image  [emp.yaml:renders]
""",
    "a member of whose engine nothing is known": "",
    "who was a member, heard": """\
machine-foreign renders-7f3k: wants absent, is ready; it is no member of pool renders; its box has to join anew, or is to be stopped
""",
    "who was a member, silent": """\
member-silent renders-7f3k: wants absent, is silent; it is no member of pool renders any more; what it left is forgotten
1. forget member renders-7f3k  (remove): silent: it is no member of pool renders any more; what it left is forgotten
""",
    "a machine here of the name that a member could have": """\
machine-surplus renders-1: wants absent, is ready; emp.yaml does not name it; `emp apply --prune` removes it
""",
    "a member of a pool that is named no more": """\
machine-surplus renders-7f3k: wants absent, is ready; pool renders is no longer in emp.yaml; `emp apply --prune` removes it
""",
    "the same, pruning": """\
machine-surplus renders-7f3k: wants absent, is ready; pool renders is no longer in emp.yaml
1. forget member renders-7f3k  (remove): ready: pool renders is no longer in emp.yaml
""",
    "external, heard": "",
    "external, behind": """\
config-behind m: wants BOX (generation 2), is OLD (generation 1); configuration changed
1. send configuration m  (in place): configuration changed  [emp.yaml:m]
""",
    "another configuration": """\
config-behind m: wants NEW (generation 2), is OLD (generation 1); configuration changed
1. send configuration m  (in place): configuration changed  [emp.yaml:m]
""",
    "another configuration while it starts": """\
config-behind m: wants NEW (generation 2), is OLD (generation 1); configuration changed
1. send configuration m  (in place): configuration changed  [emp.yaml:m]
""",
    "the same configuration, an older generation": """\
generation-behind m: wants generation 2, is generation 1; a newer generation was applied; nothing it runs has changed
1. send configuration m  (in place): a newer generation was applied; nothing it runs has changed  [emp.yaml:m]
""",
    "a newer generation than desired": "",
    "starting": """\
machine-starting m: wants ready, is starting; its start-up sequence is under way
""",
    "configuring": """\
machine-starting m: wants ready, is configuring; its start-up sequence is under way; comfyui-gpu0 is STARTING: supervisord is at it
""",
    "starting, a program was just stopped": """\
machine-starting m: wants ready, is starting; its start-up sequence is under way
""",
    "starting, a program was stopped long ago": """\
machine-starting m: wants ready, is starting; its start-up sequence is under way
program-stopped comfyui-gpu0: wants RUNNING, is STOPPED; it was stopped, or exited and was not restarted
1. start program m comfyui-gpu0  (start): it is STOPPED: it was stopped, or exited and was not restarted  [emp.yaml:comfyui]
""",
    "stuck with an error": """\
program-fatal comfyui-gpu0: wants RUNNING, is FATAL; supervisord gave up after its retries
1. start program m comfyui-gpu0  (start): it is FATAL: supervisord gave up after its retries  [emp.yaml:comfyui]
""",
    "the error has gone, ready not yet said": """\
machine-starting m: wants ready, is configuring; its start-up sequence is under way
""",
    "stopping": """\
machine-starting m: wants ready, is stopping; the machine is stopping
""",
    "unreadable, and living": """\
report-malformed m: wants a report that fits, is Expected `int`, got `str`; another program wrote it, or another version of emp
""",
    "unreadable, and silent": """\
machine-stale m: wants reporting, is last report 20 s ago; its agent hangs or cannot reach Redis
1. restart machine m  (restart): its agent hangs or cannot reach Redis  [emp.yaml:m]
""",
    "unreadable, and silent, and its runtime does not know": """\
machine-unreachable m: wants reporting, is last report 20 s ago; no runtime here can tell whether it runs
""",
    "unreadable, and not running": """\
machine-missing m: wants running, is not running; it was never started
1. start machine m  (start): it was never started  [emp.yaml:m]
""",
    "program not known to supervisord": """\
program-missing comfyui-gpu0: wants RUNNING, is absent; supervisord does not know it
1. send configuration m  (in place): comfyui-gpu0: supervisord does not know it  [emp.yaml:comfyui]
""",
    "program gave up": """\
program-fatal comfyui-gpu0: wants RUNNING, is FATAL; Exited too quickly
1. start program m comfyui-gpu0  (start): it is FATAL: Exited too quickly  [emp.yaml:comfyui]
""",
    "program gave up, its last end known": """\
program-fatal comfyui-gpu0: wants RUNNING, is FATAL; exited with status 3, 1.2 s after its start; last words: ImportError: torch
1. start program m comfyui-gpu0  (start): it is FATAL: exited with status 3, 1.2 s after its start; last words: ImportError: torch  [emp.yaml:comfyui]
""",
    "program in backoff, its last end known": """\
program-starting comfyui-gpu0: wants RUNNING, is BACKOFF; was ended by SIGKILL (somebody killed it, or memory ran out), 60 min after its start; it said nothing; it is started again
""",
    "program starting, its last end known": """\
program-starting comfyui-gpu0: wants RUNNING, is STARTING; supervisord is at it; before that it exited with status 3, 1.2 s after its start; last words: ImportError: torch
""",
    "program stopped, its last end known": """\
program-stopped simulation: wants RUNNING, is STOPPED; it was stopped; before that it was ended by SIGKILL (somebody killed it, or memory ran out), 60 min after its start; it said nothing
1. start program m simulation  (start): it is STOPPED: it was stopped; before that it was ended by SIGKILL (somebody killed it, or memory ran out), 60 min after its start; it said nothing  [emp.yaml:simulation]
""",
    "program exited, its last end known": """\
program-stopped simulation: wants RUNNING, is EXITED 3; exited with status 3, 1.2 s after its start; last words: ImportError: torch
1. start program m simulation  (start): it is EXITED 3: exited with status 3, 1.2 s after its start; last words: ImportError: torch  [emp.yaml:simulation]
""",
    "program answers nothing yet, its last end known": """\
program-starting comfyui-gpu0: wants RUNNING, is RUNNING, not healthy yet; its health check has not passed yet: refused; before that it exited with status 3, 1.2 s after its start; last words: ImportError: torch
""",
    "program still starting after its time": """\
program-unhealthy comfyui-gpu0: wants RUNNING, is RUNNING, unhealthy; still starting after 60 s: raise health.startup if it needs longer; so far: refused
1. restart program m comfyui-gpu0  (restart): it is RUNNING, unhealthy: still starting after 60 s: raise health.startup if it needs longer; so far: refused  [emp.yaml:comfyui]
""",
    "program is well, its last end known": "",
    "worker gave up, its last end known": """\
program-fatal redis-worker-gpu0: wants RUNNING, is FATAL; exited with status 3, 1.2 s after its start; last words: ImportError: torch
1. start program m redis-worker-gpu0  (start): it is FATAL: exited with status 3, 1.2 s after its start; last words: ImportError: torch  [emp.yaml:m]
""",
    "program flapping, its last end known": """\
program-flapping simulation: wants RUNNING, is RUNNING; it ended 5 times in 120 s; the last time it exited with status 3, 1.2 s after its start; last words: ImportError: torch
1. stop program m simulation  (stop): it is RUNNING: it ended 5 times in 120 s; the last time it exited with status 3, 1.2 s after its start; last words: ImportError: torch  [emp.yaml:simulation]
""",
    "set-up step failed, its last end known": """\
program-fatal comfyui-installer: wants EXITED 0, is EXITED 3; the set-up step exited with status 3, 1.2 s after its start; last words: ImportError: torch
1. start program m comfyui-installer  (start): it is EXITED 3: the set-up step exited with status 3, 1.2 s after its start; last words: ImportError: torch  [emp.yaml:comfyui]
""",
    "program gave up, no reason": """\
program-fatal simulation: wants RUNNING, is FATAL; supervisord gave up after its retries
1. start program m simulation  (start): it is FATAL: supervisord gave up after its retries  [emp.yaml:simulation]
""",
    "program flapping": """\
program-flapping simulation: wants RUNNING, is RUNNING; it ended 5 times in 120 s
1. stop program m simulation  (stop): it is RUNNING: it ended 5 times in 120 s  [emp.yaml:simulation]
""",
    "program flapping, in backoff": """\
program-flapping simulation: wants RUNNING, is BACKOFF; it ended 5 times in 120 s
1. stop program m simulation  (stop): it is BACKOFF: it ended 5 times in 120 s  [emp.yaml:simulation]
""",
    "program that flapped a while ago": """\
program-starting simulation: wants RUNNING, is STARTING; supervisord is at it
""",
    "program flapping, stopped since": """\
program-stopped simulation: wants RUNNING, is STOPPED; it was stopped, or exited and was not restarted
1. start program m simulation  (start): it is STOPPED: it was stopped, or exited and was not restarted  [emp.yaml:simulation]
""",
    "port taken": """\
program-port-taken comfyui-gpu0: wants RUNNING, is FATAL; port PORT is taken by pid 7 (nginx)
""",
    "port taken, healthy all the same": "",
    "set-up step failed": """\
program-fatal comfyui-installer: wants EXITED 0, is EXITED 3; the set-up step exited with status 3
1. start program m comfyui-installer  (start): it is EXITED 3: the set-up step exited with status 3  [emp.yaml:comfyui]
""",
    "set-up step running": """\
program-starting comfyui-installer: wants EXITED 0, is RUNNING; the set-up step is running
""",
    "program stopped": """\
program-stopped simulation: wants RUNNING, is STOPPED; it was stopped, or exited and was not restarted
1. start program m simulation  (start): it is STOPPED: it was stopped, or exited and was not restarted  [emp.yaml:simulation]
""",
    "program exited": """\
program-stopped simulation: wants RUNNING, is EXITED 1; it was stopped, or exited and was not restarted
1. start program m simulation  (start): it is EXITED 1: it was stopped, or exited and was not restarted  [emp.yaml:simulation]
""",
    "program's state unknown to supervisord": """\
program-stopped simulation: wants RUNNING, is UNKNOWN; it was stopped, or exited and was not restarted
1. start program m simulation  (start): it is UNKNOWN: it was stopped, or exited and was not restarted  [emp.yaml:simulation]
""",
    "program stopped, its set-up too": """\
program-fatal comfyui-installer: wants EXITED 0, is EXITED 1; the set-up step exited with status 1
program-waiting comfyui-gpu0: wants RUNNING, is STOPPED; it waits for comfyui-installer
1. start program m comfyui-installer  (start): it is EXITED 1: the set-up step exited with status 1  [emp.yaml:comfyui]
""",
    "program starting": """\
program-starting simulation: wants RUNNING, is STARTING; supervisord is at it
""",
    "program in backoff": """\
program-starting simulation: wants RUNNING, is BACKOFF; can't find command
""",
    "program stopping": """\
program-starting simulation: wants RUNNING, is STOPPING; supervisord is at it
""",
    "not probed yet": """\
program-starting comfyui-gpu0: wants RUNNING, is RUNNING, not healthy yet; its health check has not passed yet
""",
    "unhealthy": """\
program-unhealthy comfyui-gpu0: wants RUNNING, is RUNNING, unhealthy; its health check failed 3 times or more: /system_stats answered 500
1. restart program m comfyui-gpu0  (restart): it is RUNNING, unhealthy: its health check failed 3 times or more: /system_stats answered 500  [emp.yaml:comfyui]
""",
    "unhealthy, no reason": """\
program-unhealthy comfyui-gpu0: wants RUNNING, is RUNNING, unhealthy; its health check fails
1. restart program m comfyui-gpu0  (restart): it is RUNNING, unhealthy: its health check fails  [emp.yaml:comfyui]
""",
    "program too many": """\
program-surplus comfyui-gpu1: wants absent, is RUNNING; supervisord has a program that this generation does not name
1. send configuration m  (in place): comfyui-gpu1: supervisord has a program that this generation does not name  [emp.yaml:m]
""",
    "several programs, one send": """\
program-missing simulation: wants RUNNING, is absent; supervisord does not know it
program-missing comfyui-gpu0: wants RUNNING, is absent; supervisord does not know it
program-surplus comfyui-gpu1: wants absent, is RUNNING; supervisord has a program that this generation does not name
1. send configuration m  (in place): simulation: supervisord does not know it  [emp.yaml:simulation]
""",
    "worker never reported": """\
worker-missing m-worker-0: wants idle or busy, is not reporting; its program runs, but the worker does not report
1. restart program m redis-worker-gpu0  (restart): m-worker-0 is not reporting: its program runs, but the worker does not report  [emp.yaml:m]
""",
    "worker's program just started": """\
worker-starting m-worker-0: wants idle or busy, is not reporting; its program has just been started
""",
    "worker silent": """\
worker-stale m-worker-0: wants idle or busy, is silent for 11 s; it hangs
1. restart program m redis-worker-gpu0  (restart): m-worker-0 is silent for 11 s: it hangs  [emp.yaml:m]
""",
    "worker silent, its program just restarted": """\
worker-starting m-worker-0: wants idle or busy, is not heard since its restart; its program has just been started
""",
    "worker of another machine": """\
worker-wrong-machine m-worker-0: wants idle or busy, is of machine unknown; it was started for another machine
1. restart program m redis-worker-gpu0  (restart): m-worker-0 is of machine unknown: it was started for another machine  [emp.yaml:m]
""",
    "worker heard in the second of its program's restart, and not since": """\
worker-starting m-worker-0: wants idle or busy, is not heard since its restart; its program has just been started
""",
    "worker of another process than its program, which runs for long": "",
    "worker of another machine, its program just restarted": """\
worker-starting m-worker-0: wants idle or busy, is not heard since its restart; its program has just been started
""",
    "worker initializing": """\
worker-starting m-worker-0: wants idle or busy, is initializing; it is starting
""",
    "worker unreadable, and living": """\
report-malformed m-worker-0: wants a report that fits, is Expected `int`, got `str`; another program wrote it, or another version of emp
""",
    "worker unreadable, and silent": """\
worker-stale m-worker-0: wants idle or busy, is silent for 20 s; it hangs
1. restart program m redis-worker-gpu0  (restart): m-worker-0 is silent for 20 s: it hangs  [emp.yaml:m]
""",
    "worker with a program in trouble": """\
program-stopped redis-worker-gpu0: wants RUNNING, is STOPPED; it was stopped, or exited and was not restarted
1. start program m redis-worker-gpu0  (start): it is STOPPED: it was stopped, or exited and was not restarted  [emp.yaml:m]
""",
    "worker too many, silent": """\
worker-surplus m-worker-7: wants absent, is silent; it ended without taking its report away
1. forget worker m m-worker-7  (remove): it ended without taking its report away
""",
    "worker too many, living": """\
worker-surplus m-worker-7: wants absent, is idle; no GPU slot of this fleet has it
""",
    "worker too many, unreadable and living": """\
report-malformed m-worker-7: wants a report that fits, is bad; another program wrote it, or another version of emp
""",
    "worker too many, unreadable and silent": """\
worker-surplus m-worker-7: wants absent, is silent; it ended without taking its report away
1. forget worker m m-worker-7  (remove): it ended without taking its report away
""",
    "machine too many": """\
machine-surplus old: wants absent, is ready; emp.yaml does not name it; `emp apply --prune` removes it
""",
    "machine too many, pruning": """\
machine-surplus old: wants absent, is ready; emp.yaml does not name it
1. remove machine old  (remove): emp.yaml does not name it
""",
    "machine too many, not reporting": """\
machine-surplus old: wants absent, is silent; emp.yaml does not name it
1. remove machine old  (remove): emp.yaml does not name it
""",
    "machine too many, long gone": """\
machine-surplus old: wants absent, is silent; emp.yaml does not name it
1. remove machine old  (remove): emp.yaml does not name it
""",
    "machine too many that no runtime knows": """\
machine-foreign old: wants absent, is ready; emp.yaml does not name it, and no runtime here can stop it; stop it where it runs
""",
    "machine too many, unreadable and silent": """\
machine-surplus old: wants absent, is silent; emp.yaml does not name it
1. remove machine old  (remove): emp.yaml does not name it
""",
    "machine too many, stopped": """\
machine-surplus old: wants absent, is stopped; emp.yaml does not name it
1. remove machine old  (remove): emp.yaml does not name it
""",
    "machine too many, stopped, not pruning": "",
    "machine too many, with its workers": """\
machine-surplus old: wants absent, is ready; emp.yaml does not name it; `emp apply --prune` removes it
""",
}


@pytest.mark.parametrize("name", ROWS)
def test_state_leads_to_drift_and_plan(name: str) -> None:
    assert minutes(*ROWS[name]) == EXPECTED[name].rstrip("\n")


def test_every_kind_stands_in_the_table() -> None:
    shown = {line.split()[0] for text in EXPECTED.values() for line in text.splitlines() if not line[0].isdigit()}
    aside = {line.split()[0] for _, _, text in ASIDE_ROWS for line in text.splitlines() if not line[0].isdigit()}
    of_pools = {"pool-short", "pool-over", "member-gone"}  # tests/unit/fleet/pools
    elsewhere = {"image-moved", *of_pools}  # tests/unit/fleet/desired/test_image_pins
    assert shown | aside == {str(kind) for kind in Kind} - elsewhere


def test_the_same_state_gives_the_same_drift() -> None:
    for desired, observed in ROWS.values():
        assert diff(desired, observed) == diff(desired, observed)


def test_machines_come_in_the_order_of_the_file_then_what_is_surplus() -> None:
    b, a = one([], machine_id="b"), one([], machine_id="a")
    observed = look(SURPLUS, instances={SURPLUS.id: running(SURPLUS)})
    assert [d.subject for d in diff(wish(b, a), observed)] == ["b", "a", "old"]


# --- what stands beside the rest

PACKAGE = WorkerPackage(digest="2b" * 32)
TWO = one([COMFYUI], num_gpus=2)
GPUS = structs.replace(one([SIMULATION], num_gpus=2), needs_gpus=True)
ABLE = structs.replace(M, capabilities={"zone": "a", "hardware": {"gpu_memory_gb": 24}})
OFFLINE = {"comfyui": ConnectorReport(status=ConnectorStatus.OFFLINE, detail="connection refused")}
UNLOADED = {"comfyui": ConnectorReport(status=ConnectorStatus.ERROR, detail="no module named x")}


def occupied(by: Occupant | None) -> dict[str, ConnectorReport]:
    idle = ConnectorStatus.IDLE
    return {"comfyui": ConnectorReport(status=idle, occupied_by="prompt p of job j", occupied_ms=1, occupant=by)}


DOWN = {
    "api": ProgramReport(state=S.FATAL, detail="too quick"),
    "monitor": ProgramReport(state=S.RUNNING),
    "reconcile": ProgramReport(state=S.STOPPED),
}


def writes_to(*folders: str, temp: str = "", seen_ms: int = NOW_MS) -> Observed:
    """The slots of TWO report these output folders; the last of them was heard at `seen_ms`."""
    heard = [NOW_MS] * (len(folders) - 1) + [seen_ms]
    said = [ConnectorReport(status=ConnectorStatus.IDLE, output_folder=f, temp_folder=temp) for f in folders]
    slots = [worker(TWO, i, connector_statuses={"comfyui": s}, seen_ms=heard[i]) for i, s in enumerate(said)]
    return look(TWO, workers={worker_id(TWO.id, i): s for i, s in enumerate(slots)})


def of(wanted: DesiredMachine, **changes: Any) -> Desired:
    return structs.replace(wish(wanted), package=PACKAGE, emp=PACKAGE.digest, redis="127.0.0.1:6380/0", **changes)


APPLIED = Build(emp=PACKAGE.digest, supervision="now")
FORMER = Build(emp="3c" * 32, supervision="now")


def built(build: Build | None, *, on_disk: Build, package: str = PACKAGE.digest) -> Observed:
    """Of this emp; `package` is what it has for its workers."""
    return look(M, machines={M.id: report(M, build=build, package=package)}, installed=on_disk)


def runs(worker_package: str, **machine: Any) -> Observed:
    return look(M, machines={M.id: report(M, **machine)}, workers={W: worker(M, 0, package=worker_package)})


ASIDE_ROWS: list[tuple[Desired, Observed, str]] = [
    (
        UP,
        says(forged="twice; the last: a command bears no seal"),
        "orders-forged m: wants orders of its fleet, is others twice; the last: a command bears no seal; somebody who"
        " can write in Redis gave orders there; the machine refused them, and works on",
    ),
    (
        UP,
        says(rival="2-2 on there"),
        "machine-conflict m: wants one agent, is also 2-2 on there; two agents report as this machine; stop the one"
        " that does not belong",
    ),
    (
        of(M),
        says(redis="127.0.0.1:6379/0"),
        "machine-wrong-redis m: wants Redis at 127.0.0.1:6380/0, is Redis at 127.0.0.1:6379/0; it was started before"
        " redis changed\n1. restart machine m  (restart): it was started before redis changed  [emp.yaml:m]",
    ),
    (of(M), says(redis="127.0.0.1:6380/0"), ""),
    (
        of(M),
        says(disk_error="no space left on /srv/logs"),
        "disk-full m: wants room to write, is none; no space left on /srv/logs",
    ),
    (
        wish(GPUS),
        look(GPUS, machines={M.id: report(GPUS, gpus=(GpuReport(index=0),), gpu_error="GPU 1 has fallen off the bus")}),
        "gpu-lost m: wants GPUs that work, is an error; GPU 1 has fallen off the bus\n"
        "gpu-missing m: wants 2 GPUs, is 1; its driver shows fewer than num_gpus",
    ),
    (wish(GPUS), look(GPUS, machines={M.id: report(GPUS, gpus=(GpuReport(index=0), GpuReport(index=1)))}), ""),
    (of(M), worker_says(0, package=PACKAGE.digest), ""),
    (UP, worker_says(0, package="emp-orch 1"), ""),
    (
        of(M),
        runs("emp-orch 1", package=PACKAGE.digest),
        "worker-outdated m-worker-0: wants idle or busy, is emp-orch 1; its machine has 2b2b2b2b2b2b\n1. restart program"
        " m redis-worker-gpu0  (restart): m-worker-0 is emp-orch 1: its machine has 2b2b2b2b2b2b  [emp.yaml:m]",
    ),
    (  # a restart would change nothing
        of(M),
        runs("1a" * 32, package="1a" * 32),
        "worker-outdated m-worker-0: wants idle or busy, is 1a1a1a1a1a1a; its machine does not have 2b2b2b2b2b2b yet",
    ),
    (
        of(M),
        runs("1a" * 32, package="1a" * 32, package_error="disk full"),
        "worker-outdated m-worker-0: wants idle or busy, is 1a1a1a1a1a1a; its machine cannot take over 2b2b2b2b2b2b:"
        " disk full",
    ),
    (
        wish(ABLE),
        look(ABLE, workers={W: worker(ABLE, 0, capabilities={"zone": "b"})}),
        "worker-wrong-capabilities m-worker-0: wants idle or busy, is other zone; it was started with other"
        " capabilities\n1. restart program m redis-worker-gpu0  (restart): m-worker-0 is other zone: it was started with"
        " other capabilities  [emp.yaml:m]",
    ),
    (wish(ABLE), look(ABLE, workers={W: worker(ABLE, 0, capabilities={"zone": "a", "hardware": {"x": 1}})}), ""),
    (
        UP,
        worker_says(0, capabilities={"services": ["comfyui"]}, connector_statuses=OFFLINE),
        "connector-unhealthy m-worker-0 comfyui: wants idle or active, is offline; connection refused\n1. restart program"
        " m comfyui-gpu0  (restart): m-worker-0 comfyui is offline: connection refused  [emp.yaml:comfyui]",
    ),
    (
        UP,
        worker_says(0, capabilities={"services": ["comfyui"]}, connector_statuses=occupied(Occupant.STUCK)),
        "service-stuck m-worker-0 comfyui: wants idle or active, is stuck; it is at prompt p of job j\n1. restart program"
        " m comfyui-gpu0  (restart): m-worker-0 comfyui is stuck: it is at prompt p of job j  [emp.yaml:comfyui]",
    ),
    (
        UP,
        worker_says(0, capabilities={"services": ["comfyui"]}, connector_statuses=occupied(Occupant.FOREIGN)),
        "service-occupied m-worker-0 comfyui: wants idle or active, is occupied; it is at prompt p of job j",
    ),
    (UP, worker_says(0, capabilities={"services": ["comfyui"]}, connector_statuses=occupied(None)), ""),
    (
        UP,
        worker_says(0, connector_statuses=UNLOADED),
        "connector-broken m-worker-0 comfyui: wants idle or active, is error; no module named x",
    ),
    (
        UP,
        worker_says(0, store_error="no space left in file:///srv/out"),
        "store-broken m-worker-0: wants outputs saved, is takes no jobs; no space left in file:///srv/out",
    ),
    (
        wish(TWO),
        writes_to("/opt/C/output", "/opt/C/output", temp="/opt/C/temp"),
        "service-shared-folders m comfyui: wants folders of its own for each slot, is slots 0, 1 share output"
        " /opt/C/output; slots 0, 1 share temp /opt/C/temp; they take each other's file names, and a start empties temp/"
        " under the others; emp keeps their jobs' files apart by names of its own, as far as a workflow names its files"
        " itself",
    ),
    (wish(TWO), writes_to("/run/0/output", "/run/1/output"), ""),
    (wish(TWO), writes_to("", ""), ""),
    (
        UP,
        look(M, parts=DOWN),
        "control-down api: wants RUNNING, is FATAL; too quick\n1. start part control api  (start): it is FATAL: too quick",
    ),
    (
        UP,
        look(M, damaged=(DamagedKey(key="jobs", expected="a hash", found="a list"),)),
        "redis-damaged jobs: wants a hash, is a list; somebody else wrote it; nothing is done on account of what cannot"
        " be read there",
    ),
    (of(M), built(APPLIED, on_disk=APPLIED), ""),
    (
        of(M),
        built(FORMER, on_disk=APPLIED),
        "agent-outdated agent: wants emp 2b2b2b2b2b2b, is emp 3c3c3c3c3c3c; emp was changed since it was started\n"
        "1. restart program m agent  (restart): it is emp 3c3c3c3c3c3c: emp was changed since it was started"
        "  [emp.yaml:m]",
    ),
    (
        of(M),
        built(structs.replace(APPLIED, supervision="before"), on_disk=APPLIED),
        "supervisord-outdated m: wants emp 2b2b2b2b2b2b, is an older extension; emp was changed since it was started, and"
        " with it what supervisord runs of it\n1. restart machine m  (restart): emp was changed since it was started, and"
        " with it what supervisord runs of it  [emp.yaml:m]",
    ),
    # Until it is known to run on that machine, or where it was never applied, nothing is started with it.
    (of(M), built(FORMER, on_disk=APPLIED, package=FORMER.emp), ""),
    (
        of(M),
        built(APPLIED, on_disk=FORMER),
        "emp-outdated emp: wants emp 2b2b2b2b2b2b, as applied, is emp 3c3c3c3c3c3c on this host; emp was changed here;"
        " what runs has the old one still: `emp apply` takes it over",
    ),
    (of(M), built(None, on_disk=APPLIED), ""),
    (UP, built(FORMER, on_disk=APPLIED), ""),
]


@pytest.mark.parametrize(("desired", "observed", "expected"), ASIDE_ROWS)
def test_what_stands_beside_the_rest(desired: Desired, observed: Observed, expected: str) -> None:
    assert minutes(desired, observed) == expected


def test_what_stands_beside_hides_nothing() -> None:
    observed = says(rival="2-2 on there", programs=program("simulation", S.FATAL))
    assert [d.kind for d in diff(UP, observed)] == [Kind.MACHINE_CONFLICT, Kind.PROGRAM_FATAL]


# --- a Redis that was away: what nobody could hear is not silence


def after_outage(seconds: int, **changes: Any) -> Observed:
    """Redis came back so long ago; it was away for an hour before."""
    return look(M, **{"observing_since_ms": NOW_MS - seconds * 1000, **changes})


HOUR_OLD = {"machines": {M.id: report(M, seen_ms=OLD_MS)}, "workers": {W: worker(M, 0, seen_ms=OLD_MS)}}
EMPTIED: dict[str, Any] = {"machines": {}, "workers": {}}


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (after_outage(0, **HOUR_OLD), "machine-booting"),
        (after_outage(10, **HOUR_OLD), "machine-booting"),
        (after_outage(11, **HOUR_OLD), "machine-stale"),
        (after_outage(0, **EMPTIED), "machine-booting"),
        (after_outage(29, **EMPTIED), "machine-booting"),
        (after_outage(30, **EMPTIED), "machine-stale"),
        (after_outage(0, workers={}), "worker-starting"),
        (after_outage(29, workers={}), "worker-starting"),
        (after_outage(30, workers={}), "worker-missing"),
        (after_outage(5, workers={W: worker(M, 0, seen_ms=OLD_MS)}), "worker-starting"),
        (after_outage(11, workers={W: worker(M, 0, seen_ms=OLD_MS)}), "worker-stale"),
    ],
)
def test_after_an_outage_everybody_gets_the_time_to_be_heard(observed: Observed, expected: str) -> None:
    assert " ".join(d.kind for d in diff(UP, observed)) == expected


def test_after_an_outage_the_reason_is_told() -> None:
    why = "nobody could be heard until just now"
    assert minutes(UP, after_outage(3, **EMPTIED)) == (
        f"machine-booting m: wants reporting, is not reporting yet; {why}"
    )
    assert minutes(UP, after_outage(3, **HOUR_OLD)) == (
        f"machine-booting m: wants reporting, is last report 3600 s ago; {why}"
    )
    assert minutes(UP, after_outage(3, workers={})) == (
        f"worker-starting m-worker-0: wants idle or busy, is not reporting; {why}"
    )
    assert minutes(UP, after_outage(3, workers={W: worker(M, 0, seen_ms=OLD_MS)})) == (
        f"worker-starting m-worker-0: wants idle or busy, is silent for 3600 s; {why}"
    )


def back(seconds: int, **changes: Any) -> Observed:
    """The machine's host was out of sight for an hour, until so long ago."""
    return look(M, **{"back_ms": {M.id: NOW_MS - seconds * 1000}, **changes})


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (back(0, **HOUR_OLD), "machine-booting"),
        (back(10, **HOUR_OLD), "machine-booting"),
        (back(11, **HOUR_OLD), "machine-stale"),
        (back(29, **EMPTIED), "machine-booting"),
        (back(30, **EMPTIED), "machine-stale"),
        (back(29, workers={}), "worker-starting"),
        (back(30, workers={}), "worker-missing"),
        (back(5, workers={W: worker(M, 0, seen_ms=OLD_MS)}), "worker-starting"),
        (back(11, workers={W: worker(M, 0, seen_ms=OLD_MS)}), "worker-stale"),
    ],
)
def test_a_machine_that_was_out_of_sight_gets_the_time_to_be_heard(observed: Observed, expected: str) -> None:
    assert " ".join(d.kind for d in diff(UP, observed)) == expected


def test_who_was_out_of_sight_is_known_from_one_look_to_the_next() -> None:
    unknown = {M.id: Instance(machine_id=M.id, state=InstanceState.UNKNOWN)}
    sight = Visibility()
    old = look(M, **HOUR_OLD, instances=unknown)
    assert sight.after(old, UP).back_ms == {}
    seen = sight.after(look(M, **HOUR_OLD, now_ms=NOW_MS + 1_000), UP)
    assert seen.back_ms == {M.id: NOW_MS + 1_000}  # seen, and not heard yet
    heard = sight.after(look(M, now_ms=NOW_MS + 2_000), UP)
    assert heard.back_ms == {M.id: NOW_MS + 2_000}
    later = NOW_MS + 40_000
    fresh = {"machines": {M.id: report(M, seen_ms=later)}}
    assert sight.after(look(M, now_ms=later, **fresh), UP).back_ms == {}


def test_ghosts_are_not_forgotten_right_after_an_outage() -> None:
    assert diff(UP, after_outage(5, workers={W: worker(M, 0), **ghost}))[0].seen_ms is None
    assert operations.plan(UP, diff(UP, after_outage(5, workers={W: worker(M, 0), **ghost}))) == ()


def test_a_machine_of_a_runtime_that_is_not_here_is_left_alone() -> None:
    m = one([], runtime=RuntimeKind.COMPOSE)
    observed = look(m, instances={}, machines={}, workers={})
    assert [d.kind for d in diff(wish(m), observed)] == [Kind.MACHINE_UNREACHABLE]


def test_a_container_that_cannot_be_seen_is_not_taken_for_an_old_one() -> None:
    """Its host has just been cut off; what it reported is fresh still."""
    there = structs.replace(running(M), container="0123456789abcdef", host="gpu-a")
    assert Kind.CONTAINER_OUTDATED in {d.kind for d in diff(UP, look(M, instances={M.id: there}))}
    unseen = structs.replace(there, state=InstanceState.UNKNOWN, started_ms=0)
    assert diff(UP, look(M, instances={M.id: unseen})) == ()
