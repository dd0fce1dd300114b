"""`emp apply`, step by step: what would change, bring the control plane up, publish, wait until it is so."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from msgspec import Struct

from emp_orch import settings as settings_files
from emp_orch.control import generation as generations
from emp_orch.control import ports
from emp_orch.control.observe import Observer
from emp_orch.control.plane import ControlPlane
from emp_orch.control.proposal import Proposal
from emp_orch.errors import EmpError, Unreachable, UsageError
from emp_orch.fleet.desired import DesiredMachine, desired_machines
from emp_orch.fleet.drift import Desired, Drift, diff
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import Instance, InstanceState, Observed
from emp_orch.fleet.plan import MachineChange, changes
from emp_orch.layout import Layout
from emp_orch.procident import identify, recorded
from emp_orch.runtimes import runtimes_of
from emp_orch.settings import Settings
from emp_orch.store import connect
from emp_orch.store.connect import Client
from emp_orch.store.events import Events
from emp_orch.store.generations import Generation, publish, read_generation, without_secrets
from emp_orch.store.keys import Keys

# How long a wait looks away at most when no event comes.
LOOK_AGAIN_MS = 1_000


class Preview(Struct, frozen=True, kw_only=True):
    """What applying would do. `number` is the generation in force (0: none); `same` says it asks for the same."""

    number: int
    same: bool
    changes: tuple[MachineChange, ...]
    plane_runs: bool
    settings_change: bool


def _desired(proposal: Proposal, *, prune: bool, allow_empty: bool) -> Desired:
    return generations.as_desired(
        Generation(number=0, at_ms=0, fleet=proposal.fleet, digest="", prune=prune, allow_empty=allow_empty)
    )


async def preview(layout: Layout, proposal: Proposal, *, prune: bool, allow_empty: bool) -> Preview:
    """Look, touch nothing. Raises UsageError for what must not be applied."""
    plane = ControlPlane(layout)
    runs = plane.identity() is not None
    old = _known_settings(layout)
    current: Generation | None = None
    if runs or not proposal.settings.embedded:
        current = await _in_force(old if runs and old else proposal.settings)
    current = current or generations.kept(layout)
    instances = {
        machine_id: instance
        for runtime in runtimes_of(layout, proposal.settings).values()
        for machine_id, instance in (await runtime.instances()).items()
    }
    if old is not None:
        _refuse_moved_redis(old, proposal.settings, instances)
    before: dict[MachineId, DesiredMachine] = {}
    if current is not None and current.fleet.name == proposal.fleet.name:
        before = desired_machines(current.fleet)
    desired = _desired(proposal, prune=prune, allow_empty=allow_empty)
    if prune and before and not desired.machines and not allow_empty:
        raise UsageError(f"pruning would remove all {len(before)} machines", hint="if that is meant, add --allow-empty")
    return Preview(
        number=current.number if current else 0,
        same=current is not None
        and current.digest == generations.digest(proposal.fleet)
        and (current.prune, current.allow_empty) == (prune, allow_empty),
        changes=changes(before, desired, instances),
        plane_runs=runs,
        settings_change=runs and old is not None and old != proposal.settings,
    )


def _known_settings(layout: Layout) -> Settings | None:
    return settings_files.load(layout) if layout.settings.exists() else None


async def _in_force(settings: Settings) -> Generation | None:
    """The generation in force; None when there is none, or the embedded Redis does not answer yet."""
    try:
        async with connect.connected(settings.redis_url, read_only=True) as r:
            return await read_generation(r, Keys(settings.prefix), settings.fleet)
    except Unreachable:
        if settings.embedded:
            return None
        raise


def _refuse_moved_redis(old: Settings, new: Settings, instances: Mapping[MachineId, Instance]) -> None:
    """Machines keep the Redis they were started with, so it cannot move while one runs."""
    moved = (old.machine_redis_url, old.prefix, old.fleet) != (new.machine_redis_url, new.prefix, new.fleet)
    if moved and any(i.state is InstanceState.RUNNING for i in instances.values()):
        raise UsageError(
            "the fleet's name, or its Redis (redis.url, port, prefix), changed while it runs",
            hint="run `emp down` first: machines keep the Redis they were started with",
        )


async def bring_up(layout: Layout, proposal: Proposal, seen: Preview) -> None:
    """Start the control plane, or make a running one follow new settings, and wait until it answers.

    Raises EmpError; what this call has started is stopped again then.
    """
    plane = ControlPlane(layout)
    refuse_taken_ports(layout, proposal, seen)
    if seen.plane_runs:
        plane.prepare(proposal.settings, proposal.secrets)
        if seen.settings_change:
            await plane.reload()
        await plane.start_stopped()
        await plane.wait_ready(proposal.settings)
        return
    plane.prepare(proposal.settings, proposal.secrets)
    try:
        await plane.start()
        await plane.wait_ready(proposal.settings)
    except BaseException:
        await plane.stop()
        raise


def refuse_taken_ports(layout: Layout, proposal: Proposal, seen: Preview) -> None:
    """Raise EmpError when a port that is about to be used belongs to somebody else; all of them at once."""
    wanted = [] if seen.plane_runs else _control_ports(proposal.settings)
    new = {(c.machine_id, name) for c in seen.changes for name in c.added}
    for machine in desired_machines(proposal.fleet).values():
        wanted += [
            ("127.0.0.1", p.port, f"{machine.id}/{p.name}", p.origin)
            for p in machine.programs
            if p.port is not None and (machine.id, p.name) in new
        ]
    lines = []
    for host, port, what, where in wanted:
        if ports.taken(host, port):
            who = ports.listener(port)
            # What a killed supervisord of ours left behind is ended before its successor starts.
            if who is None or not _is_ours(layout, who.pid):
                lines.append(f"{where}: port {port} for {what} is taken by {who or 'somebody'}")
    if lines:
        raise EmpError("\n".join(lines), hint="stop that process, or give another port in emp.yaml")


def _is_ours(layout: Layout, pid: int) -> bool:
    """Whether process `pid` is in a process group that one of this fleet's programs leads."""
    if pid == 0:
        return False
    try:
        leader = identify(os.getpgid(pid))
    except ProcessLookupError:
        return False
    return leader is not None and any(recorded(path) == leader for path in layout.state.glob("**/run/*"))


def _control_ports(settings: Settings) -> list[tuple[str, int, str, str]]:
    wanted = [
        (settings.api.host, settings.api.port, "the API", "api.port"),
        (settings.monitor.host, settings.monitor.port, "the monitor page", "monitor.port"),
    ]
    if settings.embedded:
        wanted.append(("127.0.0.1", settings.redis_port, "the embedded Redis", "redis.port"))
    return wanted


class Session:
    """A connection to one fleet that is up: publish a generation, watch it come true."""

    def __init__(self, layout: Layout, settings: Settings, r: Client) -> None:
        self._layout = layout
        self._settings = settings
        self._r = r
        self._keys = Keys(settings.prefix)
        self._observer = Observer(r, self._keys, runtimes_of(layout, settings), fresh=False)

    async def publish(self, proposal: Proposal, seen: Preview, *, prune: bool, allow_empty: bool) -> Generation:
        """Make `proposal` the next generation. Raises EmpError when somebody else applied meanwhile."""
        number = seen.number + 1
        generation = Generation(
            number=number,
            at_ms=await connect.time_ms(self._r),
            fleet=without_secrets(proposal.fleet),
            digest=generations.digest(proposal.fleet),
            prune=prune,
            allow_empty=allow_empty,
        )
        if not await publish(self._r, self._keys, generation):
            raise EmpError(
                f"another generation {number} was applied at the same time", hint="look at `emp diff`, and apply again"
            )
        generations.keep(self._layout, generation)
        await Events(self._r, self._keys).append("generation_published", fleet=proposal.fleet.name, generation=number)
        return generation

    async def current(self) -> Generation | None:
        """The generation in force, restored into Redis from disk if Redis lost it."""
        return await generations.current(self._r, self._keys, self._layout, self._settings.fleet)

    async def wait_converged(self, generation: Generation, look: Callable[[tuple[Drift, ...], Observed], None]) -> None:
        """Until nothing differs; `look` is shown every state on the way. Never gives up by itself."""
        desired = generations.as_desired(generation)
        events = Events(self._r, self._keys)
        after = await events.latest_id()
        while True:
            observed = await self._observer.look()
            drifts = blocking(diff(desired, observed), desired)
            look(drifts, observed)
            if not drifts:
                return
            batch = await events.since(after, block_ms=LOOK_AGAIN_MS)
            after = batch[-1].id if batch else after


def blocking(drifts: tuple[Drift, ...], desired: Desired) -> tuple[Drift, ...]:
    """The drift that an apply waits for: machines it was not told to remove may stay."""
    return tuple(d for d in drifts if d.kind != "machine-surplus" or desired.prune)
