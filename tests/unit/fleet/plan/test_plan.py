"""Drift → operations, and what an apply changes, as text."""

from __future__ import annotations

import pytest
from msgspec import structs

from emp_orch.control.host.generation import as_desired
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import Desired, Drift, Kind, diff
from emp_orch.fleet.model.fleet import Fleet, MachineId, ProgramName, Scale, WorkerId
from emp_orch.fleet.model.observed import Instance, InstanceState, Observed
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.plan import operations
from emp_orch.fleet.plan.operations import Effect, MachineChange, Operation, Verb
from emp_orch.store.fleet.generations import Generation
from support.fleet.fleets import (
    COMFYUI,
    NOW_MS,
    OLD_MS,
    SIMULATION,
    fleet,
    look,
    machine,
    one,
    report,
    running,
    service,
    wish,
)
from support.fleet.members import wanted

M = one([SIMULATION, COMFYUI], num_gpus=2)


def drift(kind: Kind, subject: str = "m", *, program: str | None = None, seen_ms: int | None = None) -> Drift:
    return Drift(
        kind=kind,
        machine_id=MachineId("m"),
        subject=subject,
        desired="that",
        observed="this",
        cause="why",
        origin="emp.yaml:1:1",
        program=None if program is None else ProgramName(program),
        seen_ms=seen_ms,
    )


# Every kind, and what it leads to; "" for nothing.
REMEDIES = {
    Kind.REPORT_MALFORMED: "",
    Kind.MACHINE_MISSING: "start machine m  (start): why  [emp.yaml:1:1]",
    Kind.MACHINE_BOOTING: "",
    Kind.MACHINE_STALE: "restart machine m  (restart): why  [emp.yaml:1:1]",
    Kind.MACHINE_UNREACHABLE: "",
    Kind.MACHINE_AWAY: "",
    Kind.MEMBER_SILENT: "",  # until it has been silent for long enough
    Kind.CONFIG_BEHIND: "send configuration m  (in place): why  [emp.yaml:1:1]",
    Kind.MACHINE_STARTING: "",
    Kind.GENERATION_BEHIND: "send configuration m  (in place): why  [emp.yaml:1:1]",
    Kind.PROGRAM_MISSING: "send configuration m  (in place): p: why  [emp.yaml:1:1]",
    Kind.PROGRAM_PORT_TAKEN: "",
    Kind.PROGRAM_FLAPPING: "stop program m p  (stop): it is this: why  [emp.yaml:1:1]",
    Kind.PROGRAM_FATAL: "start program m p  (start): it is this: why  [emp.yaml:1:1]",
    Kind.PROGRAM_WAITING: "",
    Kind.PROGRAM_STOPPED: "start program m p  (start): it is this: why  [emp.yaml:1:1]",
    Kind.PROGRAM_STARTING: "",
    Kind.PROGRAM_UNHEALTHY: "restart program m p  (restart): it is this: why  [emp.yaml:1:1]",
    Kind.PROGRAM_SURPLUS: "send configuration m  (in place): p: why  [emp.yaml:1:1]",
    Kind.WORKER_MISSING: "restart program m p  (restart): w is this: why  [emp.yaml:1:1]",
    Kind.WORKER_STALE: "restart program m p  (restart): w is this: why  [emp.yaml:1:1]",
    Kind.WORKER_WRONG_MACHINE: "restart program m p  (restart): w is this: why  [emp.yaml:1:1]",
    Kind.WORKER_OUTDATED: "restart program m p  (restart): w is this: why  [emp.yaml:1:1]",
    Kind.WORKER_WRONG_CAPABILITIES: "restart program m p  (restart): w is this: why  [emp.yaml:1:1]",
    Kind.WORKER_STARTING: "",
    Kind.AGENT_OUTDATED: "restart program m p  (restart): it is this: why  [emp.yaml:1:1]",
    Kind.SUPERVISORD_OUTDATED: "restart machine m  (restart): why  [emp.yaml:1:1]",
    Kind.EMP_OUTDATED: "",
    Kind.REDIS_DAMAGED: "",
    Kind.CONNECTOR_BROKEN: "",
    Kind.STORE_BROKEN: "",
    Kind.CONNECTOR_UNHEALTHY: "restart program m p  (restart): c is this: why  [emp.yaml:1:1]",
    Kind.SERVICE_STUCK: "restart program m p  (restart): s is this: why  [emp.yaml:1:1]",
    Kind.SERVICE_OCCUPIED: "",
    Kind.WORKER_SURPLUS: "",
    Kind.MACHINE_CONFLICT: "",
    Kind.ORDERS_FORGED: "",
    Kind.MACHINE_WRONG_REDIS: "restart machine m  (restart): why  [emp.yaml:1:1]",
    Kind.IMAGE_MOVED: "",
    Kind.CONTAINER_PAUSED: "start machine m  (start): why  [emp.yaml:1:1]",
    Kind.CONTAINER_CUT_OFF: "start machine m  (start): why  [emp.yaml:1:1]",
    Kind.CONTAINER_LOOPING: "",
    Kind.CONTAINER_OUTDATED: "restart machine m  (recreate): why  [emp.yaml:1:1]",
    Kind.DISK_FULL: "",
    Kind.GPU_LOST: "",
    Kind.GPU_MISSING: "",
    Kind.SERVICE_SHARED_FOLDERS: "",
    Kind.CONTROL_DOWN: "start part m p  (start): it is this: why  [emp.yaml:1:1]",
    Kind.MACHINE_FOREIGN: "",
    Kind.MACHINE_SURPLUS: "",
    # What they lead to says the pool: tests/unit/fleet/pools.
    Kind.POOL_SHORT: "",
    Kind.POOL_OVER: "",
    Kind.MEMBER_GONE: "",
}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_its_remedy(kind: Kind) -> None:
    inside = kind.startswith(("program-", "worker-", "connector-", "control-", "agent-"))
    inside |= kind is Kind.SERVICE_STUCK
    subject = {"program": "p", "agent": "p", "worker": "w", "connector": "c", "service": "s", "control": "p"}.get(
        kind.partition("-")[0], "m"
    )
    operation = operations.remedy(drift(kind, subject, program="p" if inside else None), wish(M))
    assert (operation.text if operation else "") == REMEDIES[kind]


def test_a_silent_ghost_is_forgotten_unless_it_reports_meanwhile() -> None:
    operation = operations.remedy(drift(Kind.WORKER_SURPLUS, "m-worker-9", seen_ms=5), wish(M))
    assert operation is not None
    assert operation.text == "forget worker m m-worker-9  (remove): why  [emp.yaml:1:1]"
    assert operation.seen_ms == 5


def test_a_member_is_forgotten_once_its_drift_says_since_when_it_is_silent() -> None:
    operation = operations.remedy(drift(Kind.MEMBER_SILENT, seen_ms=0), wanted())
    assert operation is not None
    assert operation.text == "forget member m  (remove): this: why  [emp.yaml:1:1]"
    assert operation.key == "forget-member/m"


def test_a_surplus_machine_goes_only_when_pruning() -> None:
    surplus = drift(Kind.MACHINE_SURPLUS)
    assert operations.remedy(surplus, wish(M)) is None
    operation = operations.remedy(surplus, wish(M, prune=True))
    assert operation is not None
    assert operation.text == "remove machine m  (remove): why  [emp.yaml:1:1]"


def test_a_machine_of_somebody_else_stays_even_when_pruning() -> None:
    assert operations.remedy(drift(Kind.MACHINE_FOREIGN), wish(M, prune=True)) is None


@pytest.mark.parametrize(
    ("verb", "key"),
    [
        (Verb.START_MACHINE, "start-machine/m"),
        (Verb.SEND_CONFIG, "send-configuration/m"),
        (Verb.RESTART_PROGRAM, "restart-program/m/p"),
        (Verb.FORGET_WORKER, "forget-worker/m/m-worker-0"),
        (Verb.FORGET_MEMBER, "forget-member/m"),
    ],
)
def test_keys_tell_operations_apart(verb: Verb, key: str) -> None:
    operation = Operation(
        verb=verb,
        machine_id=MachineId("m"),
        program=ProgramName("p") if verb is Verb.RESTART_PROGRAM else None,
        worker_id=WorkerId("m-worker-0") if verb is Verb.FORGET_WORKER else None,
        cause="",
        origin="",
    )
    assert operation.key == key


def test_a_plan_is_numbered_names_each_operation_once_and_the_first_cause() -> None:
    drifts = (
        drift(Kind.PROGRAM_MISSING, "a", program="a"),
        drift(Kind.PROGRAM_FATAL, "b", program="b"),
        drift(Kind.PROGRAM_SURPLUS, "c", program="c"),
    )
    assert operations.text(operations.plan(wish(M), drifts)) == (
        "1. send configuration m  (in place): a: why  [emp.yaml:1:1]\n"
        "2. start program m b  (start): it is this: why  [emp.yaml:1:1]"
    )


def test_the_text_of_an_operation_names_what_comes_before() -> None:
    operation = operations.remedy(drift(Kind.MACHINE_MISSING), wish(M))
    assert operation is not None
    assert structs.replace(operation, after=("a", "b"), origin="").text == "start machine m  (start): why  after a, b"


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert operations.plan(wish(M), diff(wish(M), look(M))) == ()
    assert operations.text(()) == ""


# --- what an apply changes


def text(changes: tuple[MachineChange, ...]) -> str:
    lines = []
    for c in changes:
        parts = [f"{c.machine_id} ({c.effect}): {c.why}"]
        for sign, names in (("+", c.added), ("-", c.removed), ("~", c.changed), ("=", c.kept)):
            parts += [sign + ",".join(names)] if names else []
        lines.append("  ".join(parts))
    return "\n".join(lines)


ONE_GPU = one([SIMULATION, COMFYUI])
STARTED_OTHERWISE = one([structs.replace(SIMULATION, start_s=5.0), COMFYUI])
ELSEWHERE = one([SIMULATION], machine_id="n")
BOXED = one([SIMULATION], runtime=RuntimeKind.COMPOSE, image="image:1")
NOT_RUNNING = look(ONE_GPU, machines={}, instances={M.id: Instance(machine_id=M.id, state=InstanceState.GONE)})
CHANGES: list[tuple[str, list[DesiredMachine], Desired, Observed, str]] = [
    ("nothing changes", [ONE_GPU], wish(ONE_GPU), look(ONE_GPU), ""),
    (
        "new",
        [],
        wish(ONE_GPU),
        look(),
        "m (start): new in emp.yaml  "
        "+shared-setup,simulation-installer,comfyui-installer,simulation,comfyui-gpu0,redis-worker-gpu0",
    ),
    (
        "known but not running",
        [ELSEWHERE],
        wish(ELSEWHERE),
        look(),
        "n (start): it does not run  +shared-setup,simulation-installer,simulation,redis-worker-gpu0",
    ),
    (
        "its supervisord is gone",
        [ONE_GPU],
        wish(ONE_GPU),
        NOT_RUNNING,
        "m (start): it does not run  "
        "+shared-setup,simulation-installer,comfyui-installer,simulation,comfyui-gpu0,redis-worker-gpu0",
    ),
    (
        "more GPUs",
        [ONE_GPU],
        wish(M),
        look(ONE_GPU),
        "m (in place): num_gpus 1 → 2  +comfyui-gpu1,redis-worker-gpu1  "
        "=shared-setup,simulation-installer,comfyui-installer,simulation,comfyui-gpu0,redis-worker-gpu0",
    ),
    (
        "fewer GPUs",
        [M],
        wish(ONE_GPU),
        look(M),
        "m (in place): num_gpus 2 → 1  -comfyui-gpu1,redis-worker-gpu1  "
        "=shared-setup,simulation-installer,comfyui-installer,simulation,comfyui-gpu0,redis-worker-gpu0",
    ),
    (
        "one program differs",
        [ONE_GPU],
        wish(STARTED_OTHERWISE),
        look(ONE_GPU),
        "m (in place): its programs change  ~simulation  "
        "=shared-setup,simulation-installer,comfyui-installer,comfyui-gpu0,redis-worker-gpu0",
    ),
    (
        "none of its programs differs",
        [ONE_GPU],
        wish(one([SIMULATION, COMFYUI], health_port=9000)),
        look(ONE_GPU),
        "m (in place): its settings change  "
        "=shared-setup,simulation-installer,comfyui-installer,simulation,comfyui-gpu0,redis-worker-gpu0",
    ),
    ("only the place in the file differs", [ONE_GPU], wish(structs.replace(ONE_GPU, origin="x")), look(ONE_GPU), ""),
    (
        "no longer named",
        [ONE_GPU, ELSEWHERE],
        wish(ONE_GPU),
        look(ONE_GPU, ELSEWHERE),
        "n (remove): no longer in emp.yaml; stays until `--prune`  "
        "-shared-setup,simulation-installer,simulation,redis-worker-gpu0",
    ),
    (
        "no longer named, pruning",
        [ONE_GPU, ELSEWHERE],
        wish(ONE_GPU, prune=True),
        look(ONE_GPU, ELSEWHERE),
        "n (remove): no longer in emp.yaml; its folder is removed  "
        "-shared-setup,simulation-installer,simulation,redis-worker-gpu0",
    ),
    (
        "surplus already, pruning",
        [ONE_GPU],
        wish(ONE_GPU, prune=True),
        look(ONE_GPU, ELSEWHERE, instances={M.id: running(M), ELSEWHERE.id: structs.replace(running(M), host="h")}),
        "n (remove): emp.yaml has not named it for a while; its container and its volume are removed",
    ),
    ("surplus already, without pruning", [ONE_GPU], wish(ONE_GPU), look(ONE_GPU, ELSEWHERE), ""),
    (
        "another image: nothing runs on in a new container",
        [BOXED],
        wish(one([SIMULATION], runtime=RuntimeKind.COMPOSE, image="image:2")),
        look(BOXED),
        "m (recreate): image image:1 → image:2  ~shared-setup,simulation-installer,simulation,redis-worker-gpu0",
    ),
    (
        "no longer named, and not running",
        [ELSEWHERE],
        wish(),
        look(),
        "n (remove): no longer in emp.yaml; stays until `--prune`  "
        "-shared-setup,simulation-installer,simulation,redis-worker-gpu0",
    ),
]


@pytest.mark.parametrize(
    ("before", "after", "observed", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_an_apply_says_what_it_changes(
    before: list[DesiredMachine], after: Desired, observed: Observed, expected: str
) -> None:
    assert text(operations.changes({m.id: m for m in before}, after, observed.instances)) == expected


def test_in_place_is_what_becomes_of_a_running_machine() -> None:
    (change,) = operations.changes({M.id: M}, wish(ONE_GPU), look(M).instances)
    assert change.effect is Effect.IN_PLACE
    assert change.origin == "emp.yaml:m"


# --- removal is never silent, and pruning never empties by mistake


def generation(fleet: Fleet, *, prune: bool, allow_empty: bool) -> Generation:
    return Generation(number=2, at_ms=0, fleet=fleet, digest="", prune=prune, allow_empty=allow_empty)


SERVICES = (SIMULATION, service("s", scale=Scale.PER_GPU))
FULL = fleet(SERVICES, machine("m", services=["simulation"]))
EMPTY = fleet(SERVICES)
ALWAYS = structs.replace(EMPTY, reconcile=structs.replace(EMPTY.reconcile, prune=True))


@pytest.mark.parametrize(
    ("of", "prune", "allow_empty", "expected"),
    [
        (FULL, False, False, False),
        (FULL, True, False, True),
        (EMPTY, True, False, False),
        (EMPTY, True, True, True),
        (EMPTY, False, True, False),
        (ALWAYS, False, False, False),
        (ALWAYS, False, True, True),
    ],
)
def test_prune_never_empties_a_fleet_by_mistake(of: Fleet, prune: bool, allow_empty: bool, expected: bool) -> None:
    assert as_desired(generation(of, prune=prune, allow_empty=allow_empty)).prune is expected


@pytest.mark.parametrize("prune", [False, True])
def test_an_emptied_file_removes_nothing_and_says_so(prune: bool) -> None:
    desired = as_desired(generation(EMPTY, prune=prune, allow_empty=False))
    drifts = diff(desired, look(M))
    assert operations.plan(desired, drifts) == ()
    assert [f"{d.kind} {d.subject}: {d.cause}" for d in drifts] == [
        "machine-surplus m: emp.yaml does not name it; `emp apply --prune` removes it"
    ]


def test_an_instance_that_is_unknown_is_never_removed() -> None:
    observed = look(M, instances={M.id: Instance(machine_id=M.id, state=InstanceState.UNKNOWN)})
    desired = wish(prune=True)
    assert [d.kind for d in diff(desired, observed)] == [Kind.MACHINE_FOREIGN]
    assert operations.plan(desired, diff(desired, observed)) == ()


def test_right_after_an_outage_no_machine_is_taken_for_silent() -> None:
    observed = look(M, machines={M.id: report(M, seen_ms=OLD_MS)}, instances={M.id: running(M)})
    observed = structs.replace(observed, observing_since_ms=NOW_MS)
    assert diff(wish(), observed)[0].observed == "ready"
