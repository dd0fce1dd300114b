"""A plan in a file: what an apply would do, fixed when a person looked at it, carried out only while it still holds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from emp_orch.control.apply.plan_text import plan_lines
from emp_orch.control.checks.proposed import Preview, Proposal
from emp_orch.control.host import generation as generations
from emp_orch.control.reconciler.observe import Observer
from emp_orch.errors import EmpError, UsageError
from emp_orch.fleet.drift.table import diff
from emp_orch.host import plainfile
from emp_orch.layout import Layout
from emp_orch.runtimes import all_instances, runtimes_of
from emp_orch.settings import write_private
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys
from emp_orch.web.times import now_ms, rfc3339

MAX_BYTES = 64 * 1024 * 1024
_SAME = ("fleet", "file", "prune", "allow_empty")


class PlanFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`file_digest` is of the text of emp.yaml, `digest` of the fleet that it and the environment give,
    `observed_digest` of which lives machines are in and of what differs from the generation in force."""

    version: Literal[1] = 1
    fleet: str
    file: str
    file_digest: str
    base_generation: int
    digest: str
    observed_digest: str
    prune: bool
    allow_empty: bool
    plan: tuple[str, ...]
    made_at: str


def moved(made: PlanFile, now: PlanFile) -> tuple[str, ...]:
    """What is otherwise than when the plan was made, each in a sentence; empty while the plan holds."""
    told = []
    if any(getattr(made, name) != getattr(now, name) for name in _SAME):
        told.append(f"the plan is for {made.file} of fleet {made.fleet}, not for {now.file} of fleet {now.fleet}")
    if made.file_digest != now.file_digest:
        told.append(f"{now.file} was edited")
    elif made.digest != now.digest:
        told.append(f"{now.file} is the same, but .env or the environment gives it other values")
    if made.base_generation != now.base_generation:
        told.append(f"generation {now.base_generation} is in force; the plan follows generation {made.base_generation}")
    if made.observed_digest != now.observed_digest:
        told.append(
            "what runs is no longer as it was: a machine was started, stopped or restarted, or drift came or went"
        )
    if not told and made.plan != now.plan:
        told.append(
            "the same file would now do something else: settings, secrets or the control plane are not as they were"
        )
    return tuple(told)


def refuse_moved(made: PlanFile, now: PlanFile, where: Path) -> None:
    """Raise EmpError when the plan in the file `where` no longer holds."""
    if told := moved(made, now):
        raise EmpError(
            f"the plan in {where} no longer holds; nothing was changed:\n  " + "\n  ".join(told),
            hint=f"look again: {_again(made, where)}",
        )


def _again(made: PlanFile, where: Path) -> str:
    """The command that makes such a plan."""
    words = ["emp", "diff", *([] if made.file == "emp.yaml" else [made.file])]
    words += [f"--{name.replace('_', '-')}" for name in ("prune", "allow_empty") if getattr(made, name)]
    return " ".join([*words, "--plan-out", str(where)])


async def planned(
    layout: Layout, path: Path, proposal: Proposal, seen: Preview, *, prune: bool, allow_empty: bool
) -> PlanFile:
    """What applying the emp.yaml at `path` would do now, with all that this depends on."""
    try:
        text = path.read_bytes()
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from e
    return PlanFile(
        fleet=proposal.fleet.name,
        file=path.name,
        file_digest=hashlib.sha256(text).hexdigest(),
        base_generation=seen.number,
        digest=generations.digest(proposal.fleet),
        observed_digest=await _observed(layout, proposal, seen),
        prune=prune,
        allow_empty=allow_empty,
        plan=tuple(plan_lines(proposal, seen)),
        made_at=rfc3339(now_ms()),
    )


async def _observed(layout: Layout, proposal: Proposal, seen: Preview) -> str:
    """A digest of the machines' lives, and of the drift by kind and subject: its words also hold ages."""
    settings = seen.running or proposal.settings
    lives = {
        machine_id: f"{found.state} {found.boot_id or found.started_ms}"
        for machine_id, found in (await all_instances(runtimes_of(layout, settings))).items()
    }
    drift: list[str] = []
    if seen.plane_runs or not settings.embedded:
        keys = Keys(settings.prefix)
        async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
            current = await generations.in_force(r, keys, layout, settings.fleet)
            if current is not None:
                current = await generations.with_members(r, keys, layout, current)
                observed = await Observer(r, keys, runtimes_of(layout, settings), fresh=False).look()
                desired = generations.as_desired(current, redis=client.address(settings.machine_redis_url))
                drift = sorted(d.key for d in diff(desired, observed))
    return hashlib.sha256(msgspec.json.encode((lives, drift), order="sorted")).hexdigest()


def write(path: Path, plan: PlanFile) -> None:
    """Put `plan` into the file `path`, 0600, whole or not at all. Raises EmpError."""
    try:
        write_private(path, msgspec.json.format(msgspec.json.encode(plan)) + b"\n")
    except OSError as e:
        raise EmpError(f"cannot write {path}: {e.strerror}", hint="name a file in a folder you may write in") from e


def read(path: Path) -> PlanFile:
    """The plan in the file `path`. Raises UsageError when there is none, or something else."""
    try:
        text = plainfile.read(path, limit=MAX_BYTES)
    except OSError as e:
        raise UsageError(f"cannot read {path}: {e.strerror}", hint="`emp diff --plan-out FILE` writes one") from e
    if len(text) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB: no plan of emp's")
    try:
        plan = msgspec.json.decode(text, type=PlanFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise UsageError(f"{path} is no plan: {e}", hint="`emp diff --plan-out FILE` writes one") from e
    if Path(plan.file).name != plan.file:
        raise UsageError(f"{path} is no plan: file holds a path", hint="`emp diff --plan-out FILE` writes one")
    return plan
