"""What a person can do about a drift: commands and sentences, the most fitting first."""

from __future__ import annotations

from emp_orch.fleet.drift.kinds import CONTROL, Drift, Kind
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.policy.pauses import pause_at

SHARED_FOLDERS = (
    "`builtin: comfyui` gives each slot folders of its own; in a command of your own: --output-directory and"
    " --temp-directory with ${port} in them (docs/comfyui.md)"
)
_BY_KIND = {
    Kind.REPORT_MALFORMED: "find who writes it: another program, or another version of emp on that machine",
    Kind.MACHINE_UNREACHABLE: "look where it runs: nothing here can tell whether it does; emp stops nothing unknown",
    Kind.MACHINE_AWAY: "start it where it is; on a new box: the line that `emp machine join {machine}` prints",
    Kind.MEMBER_SILENT: "wait: it is forgotten by itself; `emp machine forget {machine}` does it now",
    Kind.MACHINE_FOREIGN: "stop it where it runs, or add it to emp.yaml",
    Kind.MACHINE_CONFLICT: "stop one of the two: the report says where each runs",
    Kind.ORDERS_FORGED: "find who writes in Redis (`CLIENT LIST`, `ACL LOG`), and change its logins; docs/security.md",
    Kind.DISK_FULL: "make room there (`emp logs --clear`, old outputs); all runs on; what cannot be written is lost",
    Kind.GPU_LOST: "look at the driver there (`nvidia-smi`, the kernel's log); often only a reboot helps",
    Kind.GPU_MISSING: "give the machine fewer slots (`emp scale`), or look for the GPU that the driver does not show",
    Kind.PROGRAM_PORT_TAKEN: "stop who listens there, or give the service another port in emp.yaml",
    Kind.CONNECTOR_BROKEN: "install the connector's package where the worker runs, then `emp restart` it",
    Kind.STORE_BROKEN: "put right what it says; the worker tries again by itself, and takes jobs when it can save",
    Kind.SERVICE_SHARED_FOLDERS: SHARED_FOLDERS.replace("${port}", "${{port}}"),
    Kind.SERVICE_OCCUPIED: "wait for it, or stop it where it was begun; `emp restart {machine} PROGRAM` ends it",
    Kind.CONTROL_DOWN: "`emp doctor` looks at the control plane; `emp apply` starts its parts",
    Kind.REDIS_DAMAGED: "`emp doctor --repair` puts it aside for a week, and emp goes on; find who writes there",
    Kind.EMP_OUTDATED: "`emp apply` takes it over: one after another, jobs are ended first",
    Kind.IMAGE_MOVED: "`emp apply` shows it in its plan and goes over to it; until then what was applied runs",
    Kind.CONTAINER_LOOPING: "put right what its last words say, or `emp rollback`; its engine goes on starting it",
    Kind.MACHINE_SURPLUS: "`emp apply --prune` stops and removes it; or add it to emp.yaml again",
}


def advice(item: Item, overrides: tuple[Override, ...]) -> tuple[str, ...]:
    """For a drift that stands. Empty when there is nothing to do but wait."""
    drift = item.drift
    target = " ".join(filter(None, (drift.machine_id, drift.program)))
    logs = f"`emp logs {_log(drift)}` shows what it said"
    found: list[str] = []
    if drift.machine_id == CONTROL:
        return (
            (_BY_KIND[drift.kind],)
            if drift.kind in (Kind.EMP_OUTDATED, Kind.REDIS_DAMAGED)
            else (_BY_KIND[Kind.CONTROL_DOWN], logs)
        )
    match item.hold:
        case Hold.PAUSE:
            pause = pause_at(overrides, drift.machine_id, drift.program)
            scope = "" if pause is None or pause.machine_id is None else " " + pause.scope.replace("/", " ")
            found.append(f"`emp resume{scope}` lets emp act again")
        case Hold.BREAKER:
            found += ["find what the failed machines share: `emp diff`, `emp logs`", "`emp resume` closes the breaker"]
        case Hold.QUARANTINE:
            found += [logs, f"`emp restart {_released_by(item)}` releases it, and tries again"]
        case Hold.UNKNOWN:
            found.append("`emp doctor` says what it cannot see, and what to do about it")
        case Hold.BACKOFF | Hold.RESTING:
            found += [logs, f"`emp restart {target}` tries now, without the pause"]
        case Hold.BUSY:
            found.append(f"wait for its job, or cancel it (`emp cancel JOB`); `emp restart {target}` does not wait")
        case Hold.ROLLOUT:
            found += [logs, "`emp apply` with what is wrong put right, or the last good emp.yaml again"]
        case Hold.UNAVAILABLE:
            found.append("wait, or raise reconcile.max_unavailable")
        case Hold.UNDER_WAY:
            found.append("wait: it is under way")
        case None:
            found += [_BY_KIND[drift.kind].format(machine=drift.machine_id)] if drift.kind in _BY_KIND else []
            found += [logs] if drift.program else []
    return tuple(found)


def _released_by(item: Item) -> str:
    """What was quarantined: a program of a machine that works otherwise, or all of the machine."""
    _, machine_id, *program = item.operation.split("/", 2)
    return " ".join((machine_id, *program))


def _log(drift: Drift) -> str:
    if drift.machine_id == CONTROL:
        return drift.subject
    return "/".join(filter(None, (f"machine-{drift.machine_id}", drift.program)))
