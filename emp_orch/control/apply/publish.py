"""From a proposal to a fleet that is so: bring the control plane up, publish, wait. preview.py looks before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from msgspec import structs

from emp_orch import openfiles
from emp_orch import settings as settings_files
from emp_orch.control.checks.engines import refuse_other_engines
from emp_orch.control.checks.images import Tell, have_images
from emp_orch.control.checks.ports import refuse_taken_ports
from emp_orch.control.checks.proposed import Preview, Proposal
from emp_orch.control.checks.store import refuse_store
from emp_orch.control.host import generation as generations
from emp_orch.control.host import identity
from emp_orch.control.limits import LOOK_AGAIN_MS
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.control.plane.embedded_login import assure_password, claimed
from emp_orch.control.plane.installed import own_build
from emp_orch.control.plane.packing import keep_own
from emp_orch.control.plane.supervisord_plane import Age
from emp_orch.control.reconciler.observe import Observer
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.table import Desired, Drift, Kind, diff
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.package import Build
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.policy.pauses import drained
from emp_orch.fleet.policy.standstill import standstill
from emp_orch.host.freespace import refuse_full
from emp_orch.layout import Layout
from emp_orch.runtimes import runtimes_of
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.settings import Settings
from emp_orch.store.acl.users import lacking, shared, withdraw
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.generations import Generation, publish, without_secrets
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.pools.members import Members, Seen, populated
from emp_orch.store.fleet.status import FleetStatus, read_status
from emp_orch.store.redis import client
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

Look = Callable[[tuple[Drift, ...], Observed, FleetStatus | None], None]

# Of what is left to a person so much is named.
SHOWN = 5


async def bring_up(layout: Layout, proposal: Proposal, seen: Preview, tell: Tell, warn: Tell) -> Proposal:
    """Start the control plane, or make a running one follow new settings, and wait until it answers: the proposal, with
    the images of its containers, which are on their hosts from here on. `tell` of what is pulled, `warn` of what
    hinders nothing and a person should know.

    Raises EmpError; what this call has started is stopped again then.
    """
    plane = plane_of(layout, proposal.settings)
    openfiles.refuse_too_few()
    refuse_taken_ports(layout, proposal, seen)
    await refuse_other_engines(layout, proposal)
    proposal = await have_images(proposal, seen, tell)
    goes_on = seen.plane_runs and seen.plane_age is not Age.ITS_SUPERVISORD_OLD
    if not goes_on:
        refuse_full(layout.control, layout.machines, layout.redis, layout.artifacts, layout.logs)
    proposal = structs.replace(proposal, settings=claimed(layout, proposal.settings))
    known = settings_files.known(layout)
    if known is not None or proposal.settings.artifacts != layout.artifacts_url:  # its default is made with the rest
        await refuse_store(proposal.settings, known, warn)
    if goes_on:
        anew = seen.settings_change or seen.plane_age is Age.ITS_PARTS_OLD
        if anew:
            # Stands until the daemons follow, so that an apply that is interrupted here is made good by the next.
            plane.reload_pending = True
        plane.prepare(proposal.settings, proposal.secrets)
        keep_own(layout, proposal.settings.prefix)
        await assure_password(layout, proposal.settings)
        if anew:
            await plane.reload()
            plane.reload_pending = False
        await plane.start_stopped()
        await plane.wait_ready(proposal.settings)
        return proposal
    plane.prepare(proposal.settings, proposal.secrets)
    keep_own(layout, proposal.settings.prefix)
    if seen.plane_runs:
        await plane.stop()  # its supervisord can only be another process
    started = False
    try:
        started = await plane.start()
        await plane.wait_ready(proposal.settings)
    except BaseException:
        if started:
            await plane.stop()
        raise
    return proposal


async def shared_login(settings: Settings, r: Client) -> str:
    """That machines have no users of their own at Redis, and why, in one line; empty where they have."""
    lacks = () if settings.embedded else await lacking(r)
    return f"machines {shared(lacks)}" if lacks else ""


class Session:
    """A connection to one fleet that is up: publish a generation, watch it come true."""

    def __init__(self, layout: Layout, settings: Settings, r: Client) -> None:
        self._layout = layout
        self._settings = settings
        self._r = r
        self._keys = Keys(settings.prefix)
        self._observer = Observer(r, self._keys, runtimes_of(layout, settings), fresh=False, installed=_here)

    async def publish(self, proposal: Proposal, seen: Preview, *, prune: bool, allow_empty: bool) -> Generation:
        """Make `proposal` the next generation. Raises EmpError when somebody else applied meanwhile."""
        current, fleet = await self.current(), self._settings.fleet
        number = (current.number if current else 0) + 1
        if current is not None and current.number != seen.number:
            words = f"generation {current.number} was applied meanwhile"
            if not seen.number:  # what was kept here was lost or damaged, and is written anew by now
                words = f"Redis has generation {current.number} of fleet {fleet}, which this folder did not know"
            raise EmpError(words, hint="look at `emp diff`, and apply again")
        generation = Generation(
            number=number,
            at_ms=await client.time_ms(self._r),
            fleet=without_secrets(proposal.fleet),
            digest=generations.digest(proposal.fleet),
            prune=prune,
            allow_empty=allow_empty,
            by=identity.person(),
            why=proposal.why,
            package=proposal.package,
            emp=own_build().emp,
        )
        seal = SigningKey(self._layout, fleet).control()
        if not await publish(self._r, self._keys, generation, seal):
            raise EmpError(
                f"another generation {number} was applied at the same time", hint="look at `emp diff`, and apply again"
            )
        generations.keep(self._layout, generation)
        if current is not None and generations.as_desired(generation).prune:
            await self._shut_out(current, generation)
        await Events(self._r, self._keys).append(
            "generation_published", fleet=proposal.fleet.name, generation=number, by=generation.by, why=generation.why
        )
        return generation

    async def _shut_out(self, before: Generation, after: Generation) -> None:
        """External machines that this removes: emp cannot stop them, but what they were given is void from now on."""
        kept = {m.id for m in after.fleet.machines}
        for machine in before.fleet.machines:
            if machine.traits.joins and machine.id not in kept:
                JoinTokens(self._layout).revoke(machine.id)
                await withdraw(self._r, self._keys, self._settings.fleet, machine.id)

    async def current(self) -> Generation | None:
        """The generation in force, restored into Redis from disk if Redis lost it, and the other way round."""
        fleet = self._settings.fleet
        found = await generations.current(self._r, self._keys, self._layout, fleet)
        if found is not None and generations.saved(self._layout, fleet) is None:
            generations.keep(self._layout, found)
        return found

    async def wait_converged(self, generation: Generation, look: Look) -> tuple[MachineId, ...]:
        """Until nothing differs but what drains leave out, and what only a person can start: the machines that have yet
        to join are returned.

        Raises EmpError when all that is left needs a person, or another generation was published meanwhile; else it
        never gives up by itself. `look` is shown every state on the way, with what the reconciler said of it last.
        """
        redis = client.address(self._settings.machine_redis_url)
        bare: Desired | None = None
        signing = SigningKey(self._layout, self._settings.fleet)
        members = Members(self._r, self._keys, self._settings.fleet, signing.known)
        known: Seen | None = None
        seal = SigningKey(self._layout, self._settings.fleet).known()
        events = Events(self._r, self._keys)
        after = await events.latest_id()
        while True:
            try:
                overrides = await read_overrides(self._r, self._keys, self._settings.fleet, seal)
                seen = await members.read(known)
                if bare is None or seen is not known:
                    bare, known = generations.as_desired(populated(generation, seen), redis=redis, like=bare), seen
                desired = drained(bare, overrides)
                observed = await self._observer.look()
                found = diff(desired, observed)
                drifts = blocking(found, desired)
                said = await self._said()
                look(drifts, observed, said)
                if not drifts:
                    return tuple(d.machine_id for d in found if d.kind is Kind.MACHINE_AWAY)
                if said is not None:
                    _refuse_to_wait(drifts, desired, said, observed.now_ms)
                batch = await events.since(after, block_ms=LOOK_AGAIN_MS)
                after = batch[-1].id if batch else after
            except client.TRANSIENT:
                # Redis is away for a moment; the deadline of this wait is the caller's.
                self._observer.lost()
                await client.drop_idle(self._r)
                await asyncio.sleep(LOOK_AGAIN_MS / 1000)

    async def _said(self) -> FleetStatus | None:
        with suppress(EmpError):  # damaged: the reconciler writes a new one
            return await read_status(self._r, self._keys, self._settings.fleet)
        return None


def _refuse_to_wait(drifts: tuple[Drift, ...], desired: Desired, said: FleetStatus, now_ms: int) -> None:
    """Raise EmpError where waiting is in vain, by what the reconciler said last."""
    number = desired.generation
    if said.generation > number:
        raise EmpError(
            f"generation {number} is no longer in force: generation {said.generation} took its place",
            hint="`emp history` says by whom, and why; `emp status` shows what runs",
        )
    # By itself it goes back where a rollout is under way, and only as long as it was not given up.
    goes_back = desired.limits.rollback and said.rollout is not None
    left = standstill(drifts, said.drift, now_ms, goes_back=goes_back) if said.generation == number else ()
    if left:
        lines = [f"{i.drift.kind}: {i.drift.subject}: {i.held or i.drift.cause}" for i in left[:SHOWN]]
        more = [f"… and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
        raise EmpError(
            "\n  ".join([f"generation {number} is in force, and what is left needs a person:", *lines, *more]),
            hint=_way_out(left),
        )


def _way_out(left: tuple[Item, ...]) -> str:
    if any(item.hold in (Hold.PAUSE, Hold.BREAKER) for item in left):
        return "`emp status` says which `emp resume` ends it; emp goes on then"
    return f"`emp explain {left[0].drift.machine_id}` says what to do; `emp rollback` goes back"


async def _here() -> Build:
    return own_build()


_MAY_STAY = (Kind.MACHINE_SURPLUS, Kind.MACHINE_FOREIGN)
# Only a person can mend these, and not by waiting.
_NOT_OURS = (
    *(Kind.GPU_MISSING, Kind.GPU_LOST, Kind.MACHINE_CONFLICT, Kind.MACHINE_AWAY, Kind.DISK_FULL),
    Kind.MEMBER_SILENT,  # its box comes back, or it is forgotten
    Kind.SERVICE_SHARED_FOLDERS,  # what a job gets is its own all the same
    Kind.SERVICE_OCCUPIED,  # jobs wait, as behind each other
    *(Kind.EMP_OUTDATED, Kind.IMAGE_MOVED),  # changed again, meanwhile
    *(Kind.ORDERS_FORGED, Kind.REDIS_DAMAGED),  # they were refused; it was left alone
)


def blocking(drifts: tuple[Drift, ...], desired: Desired) -> tuple[Drift, ...]:
    """The drift that an apply waits for: machines it was not told to remove may stay, and what hardware lacks."""
    return tuple(d for d in drifts if d.kind not in _NOT_OURS and (d.kind not in _MAY_STAY or desired.prune))
