"""What applying an emp.yaml would do, found out without touching anything."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import msgspec
from msgspec import structs

from emp_orch import settings as settings_files
from emp_orch.control.apply.proposal import program_secrets
from emp_orch.control.checks.host_gpus import in_words, refuse_too_few
from emp_orch.control.checks.images import Tell, pinned
from emp_orch.control.checks.proposed import Preview, Proposal
from emp_orch.control.host import generation as generations
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.control.plane.installed import own_build
from emp_orch.control.plane.supervisord_plane import Age
from emp_orch.errors import EmpError, Unreachable, UsageError
from emp_orch.fleet.desired.containers import images_moved
from emp_orch.fleet.desired.inherits import inherited_keys
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import MachineId, MemberState, PoolName
from emp_orch.fleet.model.observed import InstanceState
from emp_orch.fleet.plan.operations import Effect, changes
from emp_orch.fleet.plan.pool_changes import pool_changes
from emp_orch.host import ownership
from emp_orch.layout import Layout
from emp_orch.runtimes import all_instances, runtimes_of
from emp_orch.settings import Settings
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis import client
from emp_orch.store.redis.damaged import KeyDamaged
from emp_orch.store.redis.keys import Keys
from emp_orch.urls import without_login

log = logging.getLogger("apply")


def _desired(proposal: Proposal, *, prune: bool, allow_empty: bool) -> Desired:
    return generations.as_desired(
        Generation(number=0, at_ms=0, fleet=proposal.fleet, digest="", prune=prune, allow_empty=allow_empty)
    )


async def preview(
    layout: Layout, proposal: Proposal, *, prune: bool, allow_empty: bool, tell: Tell | None = None
) -> Preview:
    """Look, touch nothing; but for what `proposal.pull` asks for, of which `tell` is told.

    Raises UsageError for what must not be applied, EmpError when the proposal's base is no longer in force.
    """
    refuse_too_few(proposal.fleet)
    old = _known_settings(layout)
    plane = plane_of(layout, old or proposal.settings)
    runs = plane.identity() is not None
    if runs and old is not None:
        _refuse_moved_plane(old, proposal.settings)
    instances = await all_instances(runtimes_of(layout, proposal.settings))
    if old is not None and (runs or any(i.state is InstanceState.RUNNING for i in instances.values())):
        _refuse_moved_redis(old, proposal.settings)
    current, boxes = await _current(layout, proposal, old if runs and old else proposal.settings, runs=runs)
    number = current.number if current else 0
    if proposal.base not in (None, number):
        raise EmpError(f"generation {number} was applied meanwhile", hint="look at `emp history`, and try again")
    asked = await pinned(proposal, current.fleet if current else None, tell)
    proposal = structs.replace(proposal, fleet=asked)
    before: Mapping[MachineId, DesiredMachine] = desired_machines(current.fleet) if current else {}
    desired = _desired(proposal, prune=prune, allow_empty=allow_empty)
    if prune and before and not desired.machines and not allow_empty:
        raise UsageError(f"pruning would remove all {len(before)} machines", hint="if that is meant, add --allow-empty")
    found = changes(before, desired, instances, proposal.source)
    gone = tuple(c.machine_id for c in found if c.effect is Effect.REMOVE) if desired.prune else ()
    starting = {c.machine_id for c in found if c.effect is Effect.START}
    other_package = current is not None and current.package != proposal.package
    other_emp = current is not None and current.emp not in ("", own_build().emp)
    return Preview(
        number=number,
        same=current is not None
        and not other_package
        and not other_emp
        and current.digest == generations.digest(proposal.fleet)
        and current.fleet.allotment == asked.allotment
        and not images_moved(current.fleet.images, asked.images)
        and (current.prune, current.allow_empty) == (prune, allow_empty),
        changes=found,
        pools=pool_changes(current.fleet if current else None, proposal.fleet, boxes),
        images=asked.images,
        removed=gone,
        other_package=other_package and not before.keys() <= starting,
        other_emp=other_emp and not before.keys() <= starting,
        gpus=_gpus(current, proposal),
        plane_runs=runs,
        plane_age=plane.age(own_build()) if runs else Age.NEW,
        settings_change=runs and (old != proposal.settings or plane.reload_pending),
        running=old if runs else None,
        rotated=_rotated(layout, proposal, current) if runs else (),
    )


def _gpus(current: Generation | None, proposal: Proposal) -> str:
    before, now = current.fleet.allotment if current else None, proposal.fleet.allotment
    if before is None and now is None:
        return ""
    was = f" (before: {in_words(before)})" if current is not None and before != now else ""
    return f"{in_words(now)}{was}"


async def _current(
    layout: Layout, proposal: Proposal, settings: Settings, *, runs: bool
) -> tuple[Generation | None, Counter[PoolName]]:
    """The generation in force, from Redis or else from disk, with how many boxes each of its pools has as far as Redis
    says; that of another fleet does not count.
    """
    found: Generation | None = None
    boxes: Counter[PoolName] = Counter()
    if runs or not proposal.settings.embedded:
        found, boxes = await _in_redis(layout, settings)
    try:
        found = found or generations.kept(layout)
    except EmpError as e:
        log.warning("%s; going on without it", e.message)
    return (found, boxes) if found is not None and found.fleet.name == proposal.fleet.name else (None, Counter())


async def _in_redis(layout: Layout, settings: Settings) -> tuple[Generation | None, Counter[PoolName]]:
    """None when there is none, or the embedded Redis does not answer yet."""
    keys, boxes = Keys(settings.prefix), Counter[PoolName]()
    try:
        async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
            found = await generations.in_force(r, keys, layout, settings.fleet)
            if found is not None and found.fleet.pools:
                with suppress(KeyDamaged):
                    members = (await generations.with_members(r, keys, layout, found)).fleet.members
                    boxes.update(m.pool for m in members if m.state is not MemberState.LEFT)
            return found, boxes
    except Unreachable:
        if settings.embedded:
            return None, boxes
        raise


def _known_settings(layout: Layout) -> Settings | None:
    """What was applied last; a damaged file counts as none, as it is about to be written anew. Raises CopiedFolder."""
    ownership.refuse_copies(layout.root)
    if not layout.settings.exists():
        return None
    try:
        return settings_files.load(layout)
    except EmpError as e:
        log.warning("%s; going on without it", e.message)
        return None


def _refuse_moved_redis(old: Settings, new: Settings) -> None:
    """Machines keep the Redis they were started with, so it cannot move while something runs."""
    if _redis_of(old) != _redis_of(new):
        raise UsageError(
            "the fleet's name, or its Redis (redis.url, port, prefix), changed while it runs",
            hint="run `emp down` first: machines keep the Redis they were started with",
        )


def _redis_of(settings: Settings) -> tuple[str, ...]:
    """What must stay. The embedded Redis takes its password while it runs."""
    urls = (settings.machine_redis_url, settings.redis_url)
    return (*(map(without_login, urls) if settings.embedded else urls), settings.prefix, settings.fleet)


def _refuse_moved_plane(old: Settings, new: Settings) -> None:
    """What stops one kind of plane does not know the other."""
    before, after = old.containers, new.containers
    if (before is None) != (after is None) or (before and after and before.socket != after.socket):
        raise UsageError(
            "control.runtime, or the engine that runs the control plane, changed while it runs",
            hint="run `emp down` first",
        )


def _rotated(layout: Layout, proposal: Proposal, current: Generation | None) -> tuple[str, ...]:
    """References whose value is another than at the last apply; and those to what may be set, and was set or is."""
    try:
        before = msgspec.json.decode(layout.secrets.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return ()
    now, asked = proposal.secrets, inherited_keys(current.fleet) if current else frozenset()
    other = {k for k in before.keys() & now.keys() if before[k] != now[k]} & program_secrets(proposal.fleet)
    either = (before.keys() ^ now.keys()) & asked & inherited_keys(proposal.fleet)
    return tuple(sorted(other | either))
