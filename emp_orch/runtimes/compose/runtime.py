"""The compose runtime: a machine is a container on a Docker host.

Containers are made, changed and removed by `docker compose`, one service at a time, with the very file that a person
can run by hand; they are found by their labels alone, so what somebody else started is never touched, and what an
earlier emp started here is found again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from emp_orch import logmodes, marks
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.containers import HOME, OWN, unmounted
from emp_orch.fleet.desired.machines import config_hash, needed_secrets
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.container_state import PAUSED, RUNNING
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.hosts import EVERYWHERE, HOST_GATEWAY
from emp_orch.fleet.model.observed import Instance, InstanceState
from emp_orch.layout import Layout
from emp_orch.render.compose import (
    API_SECRET,
    COMMAND_KEY_SECRET,
    REDIS_SECRET,
    VALUES_SECRET,
    Placed,
    render_compose,
)
from emp_orch.resources import read_text
from emp_orch.runtimes.compose.command_line import compose
from emp_orch.runtimes.compose.connection import EngineAway
from emp_orch.runtimes.compose.containers import Container
from emp_orch.runtimes.compose.engine import Engine
from emp_orch.runtimes.compose.folder import (
    HostFolder,
    Known,
    container_user,
    folder_digest,
    give,
    same_container,
    write_in_place,
)
from emp_orch.runtimes.compose.hosts import Away, Found, HostView
from emp_orch.runtimes.compose.images import have
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.keys.logins import MachineLogins
from emp_orch.runtimes.last_words import secrets_in
from emp_orch.runtimes.limits import STOP_MARGIN_S, UNKNOWN_DRAIN_S
from emp_orch.settings import EngineAddress, Settings, write_private
from emp_orch.urls import passwords_of, without_login

log = logging.getLogger("docker")


class ComposeRuntime:
    """Machines as containers of one fleet, on the Docker hosts in its settings."""

    def __init__(self, layout: Layout, settings: Settings, logins: MachineLogins | None = None) -> None:
        self._layout = layout
        self._logins = logins or MachineLogins(layout, settings)
        self._settings = settings
        self._folder = folder_digest(layout)
        self.project = f"emp-{settings.fleet}-{self._folder}"
        self._network = f"{self.project}_default"
        self._labels = (f"emp.fleet={settings.fleet}", f"emp.folder={self._folder}")
        self._views = {
            h.name: HostView(
                h,
                self._labels,
                network=self._network,
                secrets_of=functools.partial(self._secrets_of, h.name),
            )
            for h in settings.hosts
        }
        self._stopped = threading.Event()

    # -- the Runtime protocol

    async def start(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, generation: int, command_key: bytes
    ) -> None:
        await self._vacate(machine)
        await asyncio.to_thread(self._start, machine, secrets, generation, command_key)

    async def prepare(self, machine: DesiredMachine) -> None:
        wanted = machine.container
        view = self._views.get(wanted.host) if wanted else None
        if wanted is not None and view is not None:
            await asyncio.to_thread(have, view.engine, wanted, log.info)

    async def stop(self, machine_id: MachineId) -> None:
        # All are known before the first is stopped: a host that does not answer ends this with nothing half done.
        for view, found in [place async for place in self._everywhere(machine_id)]:
            timeout_s = self._drain_s(view, machine_id) + STOP_MARGIN_S
            await asyncio.to_thread(_with_time(view.engine, timeout_s).stop, found.container.id, timeout_s=timeout_s)

    async def put_secrets(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, command_key: bytes = b""
    ) -> None:
        view = self._views.get(machine.container.host) if machine.container else None
        folder = HostFolder(self._layout, view.host.name) if view else None
        if view is not None and folder is not None and folder.secrets(machine.id).is_dir():
            await asyncio.to_thread(self._write_secrets, folder, view.host, machine, secrets, command_key)
            if not view.host.here and command_key:
                await asyncio.to_thread(self._put_files, view, folder, machine.id)

    async def instances(self) -> dict[MachineId, Instance]:
        looks = await asyncio.gather(*(v.look() for v in self._views.values()))
        found: dict[MachineId, Instance] = {}
        for view, seen in zip(self._views.values(), looks, strict=True):
            placed = HostFolder(self._layout, view.host.name).known().keys()
            if isinstance(seen, Away):
                for machine_id in placed | view.last_seen:
                    found.setdefault(machine_id, _unknown(machine_id, view, seen))
                continue
            for machine_id in placed - seen.keys():
                found.setdefault(machine_id, _removed(machine_id, view))
            for machine_id, one in seen.items():
                # Of a machine that moved, the container that lives is the one that counts.
                if machine_id not in found or one.instance.state is InstanceState.RUNNING:
                    found[machine_id] = one.instance
        return found

    async def remove(self, machine_id: MachineId) -> None:
        for name, view in self._views.items():
            folder = HostFolder(self._layout, name)
            if machine_id in folder.known() or machine_id in await self._ours(view):
                await asyncio.to_thread(self._remove, view, folder, machine_id)

    async def clear(self, *, volumes: bool = False) -> list[str]:
        removed: list[str] = []
        for name, view in self._views.items():
            folder = HostFolder(self._layout, name)
            seen = await view.look()
            if isinstance(seen, Away):
                continue
            for found in seen.values() if not view.host.here else ():
                await asyncio.to_thread(_forget_secrets, view.engine, found.container)
            if folder.compose.exists():
                await asyncio.to_thread(compose, view.host, folder.compose, self.project, ["down"])
            if volumes:
                removed += await asyncio.to_thread(view.engine.remove_volumes, self._labels)
        return removed

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed`, from any thread, when something happens to one of our containers; until cancelled."""
        threads = [
            threading.Thread(target=v.follow, args=(changed, self._stopped), name=f"docker-{v.host.name}", daemon=True)
            for v in self._views.values()
        ]
        for thread in threads:
            thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopped.set()  # a thread that waits for an event ends with the process

    # -- for people: logs, commands, figures

    async def container(self, machine_id: MachineId) -> tuple[Engine, str] | None:
        """The engine and container of a machine that runs, where it was placed first; None without one.

        Raises EngineAway when its host does not answer.
        """
        for view, placed in self._places(machine_id):
            try:
                container_id = await view.running(machine_id)
            except EngineAway:
                if placed:
                    raise
                continue  # a host that never had it need not answer
            if container_id is not None:
                return view.engine, container_id
        return None

    # -- below

    def _secrets_of(self, host: str, machine_id: MachineId) -> tuple[str, ...]:
        """What nothing that the machine prints may show."""
        folder = HostFolder(self._layout, host).secrets(machine_id)
        values = (*secrets_in(folder / VALUES_SECRET), *secrets_in(folder / API_SECRET))
        with suppress(OSError, UnicodeDecodeError):
            values += passwords_of((folder / REDIS_SECRET).read_text())
        return (*values, *passwords_of(self._settings.redis_url), *passwords_of(self._settings.container_redis_url))

    async def _ours(self, view: HostView) -> Mapping[MachineId, Found]:
        """What is on a host. Raises EngineAway when that cannot be known."""
        seen = await view.look()
        if isinstance(seen, Away):
            raise EngineAway(seen.detail, hint=f"the machines of {view.host.name} wait until it answers")
        return seen

    async def _everywhere(self, machine_id: MachineId) -> AsyncIterator[tuple[HostView, Found]]:
        """Where the machine has a container, known places first. A host that never had it need not answer."""
        for view, placed in self._places(machine_id):
            seen = await (self._ours(view) if placed else view.look())
            if not isinstance(seen, Away) and machine_id in seen:
                yield view, seen[machine_id]

    def _places(self, machine_id: MachineId) -> list[tuple[HostView, bool]]:
        """Every host, and whether the machine was placed there: those first."""
        found = [(v, machine_id in HostFolder(self._layout, name).known()) for name, v in self._views.items()]
        return sorted(found, key=lambda one: not one[1])

    async def _vacate(self, machine: DesiredMachine) -> None:
        """Stop and remove what the machine left on another host: it runs in one place."""
        here = machine.container.host if machine.container else ""
        for name, view in self._views.items():
            folder = HostFolder(self._layout, name)
            if name != here and machine.id in folder.known():
                seen = await self._ours(view)
                if (left := seen.get(machine.id)) is not None:
                    timeout_s = self._drain_s(view, machine.id) + STOP_MARGIN_S
                    engine = _with_time(view.engine, timeout_s)
                    await asyncio.to_thread(engine.stop, left.container.id, timeout_s=timeout_s)
                await asyncio.to_thread(self._remove, view, folder, machine.id)

    def _start(self, machine: DesiredMachine, secrets: Mapping[str, str], generation: int, command_key: bytes) -> None:
        wanted = machine.container
        view = self._views.get(wanted.host) if wanted else None
        if wanted is None or view is None:
            named = wanted.host if wanted else "none"
            raise EmpError(f"{machine.id}: there is no Docker host {named} in this fleet", hint="run `emp apply`")
        folder = HostFolder(self._layout, view.host.name)
        with folder.writing():
            # Known from here on: also while its host cannot be reached.
            self._place(folder, view, machine, generation)
            self._write_secrets(folder, view.host, machine, secrets, command_key)
            if view.host.here:
                self._share(machine)
            self._write_compose(folder)
        have(view.engine, wanted, log.info)
        self._make_network(view, folder, machine)
        if not view.host.here:
            self._hand_over(view, folder, machine)
        self._set_right(view, machine)
        compose(view.host, folder.compose, self.project, ["up", "-d", "--no-deps", "--no-build", machine.id])

    def _set_right(self, view: HostView, machine: DesiredMachine) -> None:
        """What somebody did to the machine's container while it ran, and `docker compose` leaves as it is."""
        for container in view.engine.containers(self._labels_of(machine.id)):
            if unmounted(machine, container.mounts):
                view.engine.remove_container(container.id)
                continue
            if container.state == PAUSED:
                view.engine.unpause(container.id)
            if container.state == RUNNING and self._network not in container.networks:
                view.engine.connect(container.id, self._network, alias=machine.id)

    def _labels_of(self, machine_id: MachineId) -> tuple[str, str]:
        return f"emp.folder={self._folder}", f"emp.machine={machine_id}"

    def _make_network(self, view: HostView, folder: HostFolder, machine: DesiredMachine) -> None:
        """Several `docker compose up` at once would each make the project's network, and none could use it then."""
        if view.engine.has_network(self._network):
            return
        with folder.writing():
            if not view.engine.has_network(self._network):
                compose(
                    view.host, folder.compose, self.project, ["up", "--no-start", "--no-deps", "--no-build", machine.id]
                )

    def _place(self, folder: HostFolder, view: HostView, machine: DesiredMachine, generation: int) -> None:
        settings, here = self._settings, view.host.here
        placed = Placed(
            machine=machine,
            generation=generation,
            digest=config_hash(machine),
            folder=self._folder,
            root=str(marks.applied_as(self._layout.root)),
            user=container_user(),
            redis_url=without_login(settings.container_redis_url),
            prefix=settings.prefix,
            artifacts_url=settings.artifacts,
            secrets=str(folder.secrets(machine.id)) if here else None,
            artifacts=str(self._layout.artifacts)
            if here and settings.artifacts == self._layout.artifacts_url
            else None,
            logs=str(self._logs(machine.id)) if here else None,
            api=bool(self._api_url(view.host)),
        )
        was = folder.known().get(machine.id)
        if was is not None and same_container(was.placed, placed) and self._has_container(view, machine.id):
            placed = was.placed
        known = Known(placed=placed, drain_timeout_s=machine.drain_timeout_s)
        write_private(folder.machines / f"{machine.id}.json", msgspec.json.encode(known))

    def _has_container(self, view: HostView, machine_id: MachineId) -> bool:
        """Also when its host does not answer: it had one."""
        try:
            return bool(view.engine.containers(self._labels_of(machine_id)))
        except EmpError:
            return True

    def _write_compose(self, folder: HostFolder) -> None:
        text = render_compose(
            read_text("templates/compose.yaml.j2"),
            [k.placed for k in folder.known().values()],
            fleet=self._settings.fleet,
            project=self.project,
        )
        write_private(folder.compose, text.encode())

    def _api_url(self, host: EngineAddress) -> str:
        """How machines on `host` reach the API; empty when they do not."""
        settings = self._settings
        reached = settings.door or settings.api.host in EVERYWHERE
        return f"http://{HOST_GATEWAY}:{settings.api.port}" if host.here and reached else settings.api_machine_url

    def _write_secrets(
        self,
        folder: HostFolder,
        host: EngineAddress,
        machine: DesiredMachine,
        secrets: Mapping[str, str],
        command_key: bytes,
    ) -> None:
        """0600 files of the container's user, in place: the container has them mounted."""
        root = folder.secrets(machine.id)
        root.mkdir(parents=True, exist_ok=True)
        files = {
            REDIS_SECRET: self._logins.way(machine.id, self._settings.container_redis_url).encode(),
            VALUES_SECRET: msgspec.json.encode(needed_secrets(machine, secrets)),
        }
        if command_key:
            files[COMMAND_KEY_SECRET] = command_key
        if url := self._api_url(host):
            token = JoinTokens(self._layout).issue(self._settings.fleet, machine.id, expires_s=None)
            files[API_SECRET] = msgspec.json.encode({"url": url, "token": token})
        for name, content in files.items():
            write_in_place(root / name, content)

    def _share(self, machine: DesiredMachine) -> None:
        """Make the folders that host and container share, and let the container's user write there."""
        self._layout.artifacts.mkdir(parents=True, exist_ok=True)
        logmodes.make_folder(self._layout.logs)
        logmodes.make_folder(self._logs(machine.id))
        for shared in (self._layout.artifacts, self._logs(machine.id)):
            give(shared)

    def _logs(self, machine_id: MachineId) -> Path:
        return self._layout.logs / f"machine-{machine_id}"

    def _hand_over(self, view: HostView, folder: HostFolder, machine: DesiredMachine) -> None:
        """Put the secrets into the volume of a machine on a host that does not see our files."""
        words = ["up", "--no-start", "--no-deps", "--no-build", machine.id]
        compose(view.host, folder.compose, self.project, words)
        self._put_files(view, folder, machine.id)

    def _put_files(self, view: HostView, folder: HostFolder, machine_id: MachineId) -> None:
        root = folder.secrets(machine_id)
        content = {p.name: p.read_bytes() for p in sorted(root.iterdir()) if p.is_file()}
        for container in view.engine.containers(self._labels_of(machine_id)):
            uid, gid = (int(part) for part in container_user().split(":"))
            view.engine.put_files(container.id, _volume_of(container), "secrets", content, uid=uid, gid=gid)

    def _remove(self, view: HostView, folder: HostFolder, machine_id: MachineId) -> None:
        with folder.writing():
            if machine_id in folder.known():
                self._write_compose(folder)
                compose(view.host, folder.compose, self.project, ["rm", "-s", "-f", machine_id])
            else:
                view.engine.remove_containers(self._labels_of(machine_id))
            for volume in (machine_id, f"{machine_id}.own"):
                view.engine.remove_volume(f"{self.project}_{volume}")
            (folder.machines / f"{machine_id}.json").unlink(missing_ok=True)
            shutil.rmtree(folder.secrets(machine_id), ignore_errors=True)
            JoinTokens(self._layout).revoke(machine_id)
            self._write_compose(folder)

    def _drain_s(self, view: HostView, machine_id: MachineId) -> float:
        """How long the machine's workers may take to finish, by what it was placed with."""
        known = HostFolder(self._layout, view.host.name).known().get(machine_id)
        return known.drain_timeout_s if known else UNKNOWN_DRAIN_S


def _with_time(engine: Engine, timeout_s: float) -> Engine:
    """The same engine, asked by a client of its own that waits for a stop that takes so long."""
    return Engine(engine.host, answer_s=timeout_s + STOP_MARGIN_S)


def _volume_of(container: Container) -> str:
    """Where secrets are handed over: of what an earlier emp made, beside the services' files."""
    return OWN if OWN in container.mounts else HOME


def _forget_secrets(engine: Engine, container: Container) -> None:
    """Empty the secrets in a stopped machine's volume: the next start hands them over again."""
    uid, gid = (int(part) for part in container_user().split(":"))
    names = (REDIS_SECRET, VALUES_SECRET, API_SECRET, COMMAND_KEY_SECRET)
    engine.put_files(container.id, _volume_of(container), "secrets", dict.fromkeys(names, b""), uid=uid, gid=gid)


def _unknown(machine_id: MachineId, view: HostView, away: Away) -> Instance:
    return Instance(machine_id=machine_id, state=InstanceState.UNKNOWN, detail=away.detail, host=view.host.name)


def _removed(machine_id: MachineId, view: HostView) -> Instance:
    return Instance(
        machine_id=machine_id,
        state=InstanceState.GONE,
        detail=f"it has no container on Docker host {view.host.name}",
        host=view.host.name,
    )
