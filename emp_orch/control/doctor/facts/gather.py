"""Everything the checks look at, gathered side by side. A fact that cannot be had is Unknown, with the reason."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from redis.exceptions import RedisError

from emp_orch import manifest, marks
from emp_orch import settings as settings_files
from emp_orch.control.apply.proposal import read_proposal
from emp_orch.control.doctor.facts.checkouts import CheckoutFacts, checkout_facts
from emp_orch.control.doctor.facts.engines import EngineFacts, engine_facts
from emp_orch.control.doctor.facts.host import (
    FolderFacts,
    Trouble,
    environment_of,
    folder_facts,
    lock_holders,
    trouble_of,
)
from emp_orch.control.doctor.facts.redis import RedisFacts, read_redis, read_rights, run_id
from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.host import generation as generations
from emp_orch.control.host.orphans import Orphan, machine_folders, orphans
from emp_orch.control.limits import ASK_AT_ONCE
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.control.status.inspect import Difference, difference
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import Fleet, MachineId
from emp_orch.fleet.model.observed import Instance, InstanceState
from emp_orch.host import sessions
from emp_orch.host.freespace import nearest
from emp_orch.host.ports import Holder, port_holders
from emp_orch.layout import Layout
from emp_orch.manifest.checks.devices import Note, notes_here
from emp_orch.marks import Mark
from emp_orch.procident import ProcessIdentity
from emp_orch.runtimes import all_instances, runtimes_of
from emp_orch.runtimes.keys.package_scripts import brought
from emp_orch.runtimes.process.supervisor import ProcessInfo, Supervisor
from emp_orch.settings import EngineAddress, Settings
from emp_orch.store.acl.rights import Lacks
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import is_local
from emp_orch.store.fleet.generations import Generation

# For any one fact; all are gathered at the same time.
DEADLINE_S = 2.5
# Longer than a look waits for a host (runtimes/compose/hosts.LOOK_S): that one is silent is then known of it alone.
HOSTS_S = 6.0
# The package of a far store tries some times, for seconds, before it says what is wrong.
FAR_STORE_S = 10.0

T = TypeVar("T")


class Answer(Struct, frozen=True, kw_only=True):
    """What an HTTP server said. `document` is its JSON body, empty when it is none."""

    status: int
    document: dict[str, object]


class MachineFacts(Struct, frozen=True, kw_only=True):
    """What this host knows of a machine it started. `environments`: program → its HUB_REDIS_URL ("" when unset)."""

    programs: list[ProcessInfo] | Unknown
    environments: dict[str, str]


class Facts(Struct, frozen=True, kw_only=True):
    """`fleet` and `wanted` are what emp.yaml asks for now, None without one; `settings` are in force, Unknown when
    nothing was applied in this folder. `begun`: of the `holders`, by pid, those that this fleet began. `now_ms` is
    this host's clock. `artifacts` None: the store works. `rights` None: the Redis is emp's own. `scripted`: the worker
    packages whose scripts are known here.
    """

    now_ms: int
    layout: Layout
    fleet: Fleet | Unknown | None
    wanted: Settings | Unknown | None
    generation: Generation | Unknown | None
    folder: FolderFacts
    trouble: Trouble | None
    free: dict[str, int]
    settings: Settings | Unknown
    supervisord: ProcessIdentity | None
    parts: list[ProcessInfo]
    orphans: tuple[Orphan, ...]
    locks: dict[str, int]
    holders: dict[int, Holder]
    begun: dict[int, Mark]
    redis: RedisFacts | Unknown
    rights: Lacks | Unknown | None
    machine_redis: str | Unknown
    difference: Difference | Unknown
    api_health: Answer | Unknown
    api_ready: Answer | Unknown
    monitor: Answer | Unknown
    artifacts: Unknown | None
    machines: dict[MachineId, MachineFacts]
    instances: dict[MachineId, Instance]
    engines: dict[str, EngineFacts | Unknown] = {}
    checkouts: tuple[CheckoutFacts, ...] = ()
    cards: tuple[Note, ...] = ()
    scripted: frozenset[str] = frozenset()

    @property
    def redis_settings(self) -> Settings | Unknown:
        return _of_redis(self.settings, self.wanted)

    @property
    def store_settings(self) -> Settings | Unknown:
        return _of_store(self.settings, self.wanted)

    def machine_is_alive(self, machine_id: str) -> bool:
        instance = self.instances.get(MachineId(machine_id))
        return instance is not None and instance.state is InstanceState.RUNNING

    @property
    def desired(self) -> Mapping[MachineId, DesiredMachine]:
        """The machines of the generation in force; without Redis, of the one kept on disk."""
        if isinstance(self.difference, Difference):
            return self.difference.desired.machines
        return desired_machines(self.generation.fleet) if isinstance(self.generation, Generation) else {}


async def gather(layout: Layout, environ: Mapping[str, str]) -> Facts:
    """Look at everything once, in at most about DEADLINE_S; in HOSTS_S where Docker hosts do not answer."""
    settings = _settings(layout)
    plane = plane_of(layout)
    fleet, asked = await asyncio.to_thread(_emp_yaml, layout, environ)
    uid = settings.uid if isinstance(settings, Settings) else None
    async with (
        sessions.to_own(uid, timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as http,
        asyncio.TaskGroup() as t,
    ):

        def fact(work: Awaitable[T], within_s: float = DEADLINE_S) -> asyncio.Task[T | Unknown]:
            return t.create_task(_try(work, within_s))

        parts = fact(plane.programs())
        if isinstance(asks := _of_redis(settings, asked), Settings):
            redis = fact(read_redis(asks, [m.id for m in fleet.machines] if isinstance(fleet, Fleet) else ()))
            rights = fact(_rights(asks))
        if isinstance(stores := _of_store(settings, asked), Settings):
            artifacts = fact(_artifacts(stores), DEADLINE_S if is_local(stores.artifacts) else FAR_STORE_S)
        holders = fact(asyncio.to_thread(port_holders, _ports(settings, fleet)))
        machines = fact(_machines(layout))
        if isinstance(settings, Settings):
            runtimes = runtimes_of(layout, settings)
            instances = fact(all_instances(runtimes), HOSTS_S)
            machine_redis = fact(run_id(settings.machine_redis_url, settings.redis_owner))
            found = fact(difference(layout, runtimes), HOSTS_S)
            health = fact(_get(http, settings.api, "/health"))
            ready = fact(_get(http, settings.api, "/ready"))
            monitor = fact(_get(http, settings.monitor, "/"))
        checkouts = fact(checkout_facts(fleet)) if isinstance(fleet, Fleet) else None
        cards = fact(asyncio.to_thread(lambda: tuple(notes_here(fleet)))) if isinstance(fleet, Fleet) else None
        engines = t.create_task(engine_facts(_hosts(settings, asked), fleet if isinstance(fleet, Fleet) else None))
    nothing = Unknown(reason=settings.reason) if isinstance(settings, Unknown) else None
    seen = machines.result()
    heard = holders.result()
    running = parts.result()
    looked = None if checkouts is None else checkouts.result()
    noted = None if cards is None else cards.result()
    lives = nothing or instances.result()
    return Facts(
        now_ms=int(time.time() * 1000),
        layout=layout,
        fleet=fleet,
        wanted=asked,
        generation=_generation(layout),
        folder=folder_facts(layout),
        trouble=trouble_of(layout),
        free=_free(layout),
        settings=settings,
        supervisord=plane.identity(),
        parts=[] if isinstance(running, Unknown) else running,
        orphans=orphans(layout),
        locks=lock_holders({home.name: home / ".lock" for home in machine_folders(layout)}),
        holders={} if isinstance(heard, Unknown) else heard,
        begun={} if isinstance(heard, Unknown) else _begun(layout, heard.values()),
        redis=asks if isinstance(asks, Unknown) else redis.result(),
        rights=asks if isinstance(asks, Unknown) else rights.result(),
        machine_redis=nothing or machine_redis.result(),
        difference=nothing or found.result(),
        api_health=nothing or health.result(),
        api_ready=nothing or ready.result(),
        monitor=nothing or monitor.result(),
        artifacts=stores if isinstance(stores, Unknown) else artifacts.result(),
        machines={} if isinstance(seen, Unknown) else seen,
        instances={} if isinstance(lives, Unknown) else lives,
        engines=engines.result(),
        checkouts=() if looked is None or isinstance(looked, Unknown) else looked,
        cards=() if noted is None or isinstance(noted, Unknown) else noted,
        scripted=frozenset(brought(layout, settings.prefix)) if isinstance(settings, Settings) else frozenset(),
    )


def _of_redis(settings: Settings | Unknown, wanted: Settings | Unknown | None) -> Settings | Unknown:
    """What leads to Redis: the settings in force; before the first apply emp.yaml's, where Redis is there already."""
    if isinstance(settings, Unknown) and isinstance(wanted, Settings) and not wanted.embedded:
        return wanted
    return settings


def _of_store(settings: Settings | Unknown, wanted: Settings | Unknown | None) -> Settings | Unknown:
    """What leads to the artifact store: the settings in force; before the first apply emp.yaml's, where it is far."""
    if isinstance(settings, Unknown) and isinstance(wanted, Settings) and not is_local(wanted.artifacts):
        return wanted
    return settings


async def _rights(settings: Settings) -> Lacks | None:
    return None if settings.embedded else await read_rights(settings)


async def _artifacts(settings: Settings) -> None:
    """Whether the control plane can use the artifact store. Raises EmpError."""
    await Artifacts(settings.artifacts).check()


async def _try(work: Awaitable[T], within_s: float) -> T | Unknown:
    """The fact, or in words why there is none."""
    try:
        async with asyncio.timeout(within_s):
            return await work
    except TimeoutError:
        return Unknown(reason=f"no answer within {within_s:g} s")
    except EmpError as e:
        return Unknown(reason=e.message, hint=e.hint)
    except (RedisError, aiohttp.ClientError, OSError, msgspec.MsgspecError, ValueError) as e:
        return Unknown(reason=str(e) or type(e).__name__)


def _settings(layout: Layout) -> Settings | Unknown:
    try:
        return settings_files.load(layout)
    except EmpError as e:
        return Unknown(reason=e.message)


def _generation(layout: Layout) -> Generation | Unknown | None:
    try:
        return generations.kept(layout)
    except (EmpError, OSError) as e:
        return Unknown(reason=str(e))


def _emp_yaml(layout: Layout, environ: Mapping[str, str]) -> tuple[Fleet | Unknown | None, Settings | Unknown | None]:
    """The fleet and the settings that emp.yaml asks for now; None when there is no such file."""
    path = layout.root / "emp.yaml"
    if not path.exists():
        return None, None
    try:
        fleet = manifest.load(path, environ)
    except EmpError as e:
        return Unknown(reason=e.message), None
    try:
        return fleet, read_proposal(path, environ)[1].settings
    except EmpError as e:
        return fleet, Unknown(reason=e.message)


def _hosts(settings: Settings | Unknown, asked: Settings | Unknown | None) -> list[EngineAddress]:
    """The Docker hosts in use, and those that emp.yaml adds."""
    both = [s.hosts for s in (asked, settings) if isinstance(s, Settings)]
    return list({host.name: host for hosts in both for host in hosts}.values())


def _begun(layout: Layout, holders: Iterable[Holder]) -> dict[int, Mark]:
    """Which part or program of this fleet began each of `holders`; the others are left out."""
    place = marks.of_folder(layout.root).place
    found = {h.pid: owner.mark for h in holders if h.pid and (owner := marks.owner_of(h.pid)) is not None}
    return {pid: mark for pid, mark in found.items() if mark.place == place}


def _free(layout: Layout) -> dict[str, int]:
    """Bytes free where state and logs lie; the folder above where there are none yet."""
    found = {}
    for name, folder in (("state", layout.state), ("logs", layout.logs)):
        found[name] = shutil.disk_usage(nearest(folder)).free
    return found


def _ports(settings: Settings | Unknown, fleet: Fleet | Unknown | None) -> set[int]:
    """Every port of the control plane and of this host's machines: those in use, and those that emp.yaml wants."""
    wanted: set[int] = set()
    if isinstance(settings, Settings):
        wanted |= {settings.api.port, settings.monitor.port, settings.redis_port}
    if isinstance(fleet, Fleet):
        wanted |= {fleet.api.port, fleet.monitor.port, fleet.redis.port}
        wanted |= {p.port for m in desired_machines(fleet).values() for p in m.programs if p.port}
    return wanted


async def _get(http: aiohttp.ClientSession, server: settings_files.Listen, path: str) -> Answer:
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    async with http.get(server.url + path, headers=headers, allow_redirects=False) as response:
        body = await response.content.read(64 * 1024)
        try:
            document = msgspec.json.decode(body, type=dict[str, object])
        except msgspec.MsgspecError:
            document = {}
        return Answer(status=response.status, document=document)


async def _machines(layout: Layout) -> dict[MachineId, MachineFacts]:
    """What the supervisord of every machine of this folder says."""
    limit = asyncio.Semaphore(ASK_AT_ONCE)

    async def one(home: Path) -> tuple[MachineId, MachineFacts]:
        async with limit:
            programs = await _try(Supervisor(home).all_processes(), DEADLINE_S)
        infos = [] if isinstance(programs, Unknown) else programs
        environments = {
            info.name: url
            for info in infos
            if info.pid and (url := environment_of(home / "run" / info.name, "HUB_REDIS_URL")) is not None
        }
        return MachineId(home.name), MachineFacts(programs=programs, environments=environments)

    return dict(await asyncio.gather(*(one(home) for home in machine_folders(layout))))
