"""From a proposal to a fleet that is so: bring the control plane up, publish, wait. preview.py looks before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from emp_orch import openfiles
from emp_orch.control import generation as generations
from emp_orch.control import identity
from emp_orch.control.container_plane import plane_of
from emp_orch.control.enginecheck import refuse_missing_images, refuse_other_engines
from emp_orch.control.installed import own_build
from emp_orch.control.observe import Observer
from emp_orch.control.packing import keep_own
from emp_orch.control.plane import Age
from emp_orch.control.portcheck import refuse_taken_ports
from emp_orch.control.preview import Preview
from emp_orch.control.proposal import Proposal
from emp_orch.errors import EmpError
from emp_orch.fleet.drift import Desired, Drift, Kind, diff
from emp_orch.fleet.model import MachineId, RuntimeKind
from emp_orch.fleet.observed import Observed
from emp_orch.fleet.overrides import drained
from emp_orch.fleet.package import Build
from emp_orch.freespace import refuse_full
from emp_orch.layout import Layout
from emp_orch.runtimes import runtimes_of
from emp_orch.runtimes.join_tokens import JoinTokens
from emp_orch.settings import Settings
from emp_orch.store import connect
from emp_orch.store.connect import Client
from emp_orch.store.events import Events
from emp_orch.store.generations import Generation, publish, without_secrets
from emp_orch.store.keys import Keys
from emp_orch.store.overrides import read_overrides
from emp_orch.store.scoped_access import withdraw
from emp_orch.store.status import FleetStatus, read_status

Look = Callable[[tuple[Drift, ...], Observed, FleetStatus | None], None]

# How long a wait looks away at most when no event comes.
LOOK_AGAIN_MS = 1_000


async def bring_up(layout: Layout, proposal: Proposal, seen: Preview) -> None:
    """Start the control plane, or make a running one follow new settings, and wait until it answers.

    Raises EmpError; what this call has started is stopped again then.
    """
    plane = plane_of(layout, proposal.settings)
    openfiles.refuse_too_few()
    refuse_taken_ports(layout, proposal, seen)
    await refuse_other_engines(layout, proposal)
    await refuse_missing_images(proposal, seen)
    if seen.plane_runs and seen.plane_age is not Age.ITS_SUPERVISORD_OLD:
        anew = seen.settings_change or seen.plane_age is Age.ITS_PARTS_OLD
        if anew:
            # Stands until the daemons follow, so that an apply that is interrupted here is made good by the next.
            plane.reload_pending = True
        plane.prepare(proposal.settings, proposal.secrets)
        keep_own(layout)
        if anew:
            await plane.reload()
            plane.reload_pending = False
        await plane.start_stopped()
        await plane.wait_ready(proposal.settings)
        return
    refuse_full(layout.control, layout.machines, layout.redis, layout.artifacts, layout.logs)
    plane.prepare(proposal.settings, proposal.secrets)
    keep_own(layout)
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
        current = await self.current()
        number = (current.number if current else 0) + 1
        if current is not None and current.number != seen.number:
            raise EmpError(
                f"generation {current.number} was applied meanwhile", hint="look at `emp diff`, and apply again"
            )
        generation = Generation(
            number=number,
            at_ms=await connect.time_ms(self._r),
            fleet=without_secrets(proposal.fleet),
            digest=generations.digest(proposal.fleet),
            prune=prune,
            allow_empty=allow_empty,
            by=identity.person(),
            why=proposal.why,
            package=proposal.package,
            emp=own_build().emp,
        )
        if not await publish(self._r, self._keys, generation):
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
            if machine.runtime is RuntimeKind.EXTERNAL and machine.id not in kept:
                JoinTokens(self._layout).revoke(machine.id)
                await withdraw(self._r, self._settings.fleet, machine.id)

    async def current(self) -> Generation | None:
        """The generation in force, restored into Redis from disk if Redis lost it."""
        return await generations.current(self._r, self._keys, self._layout, self._settings.fleet)

    async def wait_converged(self, generation: Generation, look: Look) -> tuple[MachineId, ...]:
        """Until nothing differs but what drains leave out, and what only a person can start: the machines that have yet
        to join are returned. Never gives up by itself.

        `look` is shown every state on the way, with what the reconciler said of it last.
        """
        redis = connect.address(self._settings.machine_redis_url)
        bare = generations.as_desired(generation, redis=redis)
        events = Events(self._r, self._keys)
        after = await events.latest_id()
        while True:
            try:
                overrides = await read_overrides(self._r, self._keys, self._settings.fleet)
                desired = drained(bare, overrides)
                observed = await self._observer.look()
                found = diff(desired, observed)
                drifts = blocking(found, desired)
                look(drifts, observed, await self._said())
                if not drifts:
                    return tuple(d.machine_id for d in found if d.kind is Kind.MACHINE_AWAY)
                batch = await events.since(after, block_ms=LOOK_AGAIN_MS)
                after = batch[-1].id if batch else after
            except connect.TRANSIENT:
                # Redis is away for a moment; the deadline of this wait is the caller's.
                self._observer.lost()
                await connect.drop_idle(self._r)
                await asyncio.sleep(LOOK_AGAIN_MS / 1000)

    async def _said(self) -> FleetStatus | None:
        with suppress(EmpError):  # damaged: the reconciler writes a new one
            return await read_status(self._r, self._keys, self._settings.fleet)
        return None


async def _here() -> Build:
    return own_build()


_MAY_STAY = (Kind.MACHINE_SURPLUS, Kind.MACHINE_FOREIGN)
# Only a person can mend these, and not by waiting.
_NOT_OURS = (
    *(Kind.GPU_MISSING, Kind.GPU_LOST, Kind.MACHINE_CONFLICT, Kind.MACHINE_AWAY, Kind.DISK_FULL),
    Kind.SERVICE_SHARED_FOLDERS,  # what a job gets is its own all the same
    Kind.SERVICE_OCCUPIED,  # jobs wait, as behind each other
    Kind.EMP_OUTDATED,  # changed again, meanwhile
)


def blocking(drifts: tuple[Drift, ...], desired: Desired) -> tuple[Drift, ...]:
    """The drift that an apply waits for: machines it was not told to remove may stay, and what hardware lacks."""
    return tuple(d for d in drifts if d.kind not in _NOT_OURS and (d.kind not in _MAY_STAY or desired.prune))
