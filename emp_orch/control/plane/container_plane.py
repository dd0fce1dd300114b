"""The control plane as containers of this host's engine: what supervisord_plane does, with Compose."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

from emp_orch import settings as settings_files
from emp_orch.control.limits import PLANE_SILENCE_S, PLANE_STOP_S
from emp_orch.control.plane import embedded
from emp_orch.control.plane.supervisord_plane import ControlPlane, Plane
from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.model.hosts import LOCAL
from emp_orch.layout import Layout
from emp_orch.procident import ProcessIdentity, identify, locked, started_ms
from emp_orch.render.compose_control import PlacedControl, render_control_compose
from emp_orch.render.supervisord import CONTROL_PROGRAMS, EMBEDDED_REDIS
from emp_orch.resources import read_text
from emp_orch.runtimes.compose.command_line import compose
from emp_orch.runtimes.compose.containers import Container, Run
from emp_orch.runtimes.compose.engine import Engine
from emp_orch.runtimes.compose.folder import folder_digest
from emp_orch.runtimes.compose.images import lacking
from emp_orch.runtimes.process.supervisor import ProcessInfo
from emp_orch.settings import ControlContainers, EngineAddress, Listen, Settings, write_private

PART = "emp.part"
# A container that the engine had to start so often is not on its way up.
GIVEN_UP_AFTER = 3
# The client waits a little longer for a stop than the engine does.
ANSWER_S = PLANE_STOP_S + 30.0

_STATES = {"running": "RUNNING", "created": "STARTING", "paused": "STOPPED", "exited": "EXITED", "dead": "FATAL"}


def plane_of(layout: Layout, settings: Settings | None = None) -> Plane:
    """The control plane of the fleet in `layout`, as `settings` say, or else those that were applied last."""
    settings = settings or settings_files.known(layout)
    if settings is None or settings.containers is None:
        return ControlPlane(layout)
    return ContainerPlane(layout, settings.fleet, settings.containers)


class ContainerPlane(Plane):
    """Known by labels, like machines; `docker compose` makes and removes it by a file that a person can use too."""

    def __init__(self, layout: Layout, fleet: str, containers: ControlContainers) -> None:
        super().__init__(layout)
        self._fleet = fleet
        self._containers = containers
        self._folder = folder_digest(layout)
        self._project = f"emp-{fleet}-{self._folder}-control"
        address = EngineAddress(name=LOCAL, url=f"unix://{containers.socket}", here=True)
        self.engine = Engine(address, answer_s=ANSWER_S)

    @property
    def file(self) -> Path:
        return self._layout.control / "compose.yaml"

    def _write(self, settings: Settings) -> None:
        text = render_control_compose(
            read_text("templates/compose-control.yaml.j2"), self._placed(settings), project=self._project
        )
        write_private(self.file, text.encode())

    def _placed(self, settings: Settings) -> PlacedControl:
        layout, socket = self._layout, Path(self._containers.socket)
        addresses = {"api": _address(settings.api), "monitor": _address(settings.monitor)}
        return PlacedControl(
            fleet=settings.fleet,
            folder=self._folder,
            root=str(layout.root),
            user=f"{os.getuid()}:{os.getgid()}",
            socket=str(socket),
            socket_group=_group(socket),
            image=self._containers.image,
            redis_image=self._containers.redis_image,
            redis=tuple(embedded.prepared(layout, settings)) if settings.embedded else (),
            redis_folder=str(layout.redis),
            logs=str(layout.logs),
            addresses={**addresses, EMBEDDED_REDIS.name: ("127.0.0.1", settings.redis_port)},
            mounts=_mounts(layout, settings.artifacts),
        )

    # -- looking

    def identity(self) -> ProcessIdentity | None:
        """The process of the first part that runs, as this host sees it."""
        try:
            runs = self._runs()
        except Unreachable:
            return None
        return next((who for run in runs.values() if run.pid and (who := identify(run.pid))), None)

    def stopped(self) -> bool:
        try:
            return not self._ours()
        except Unreachable:
            return False

    async def programs(self) -> list[ProcessInfo]:
        try:
            runs = await asyncio.to_thread(self._runs)
        except Unreachable:
            return []
        return [_info(name, run) for name, run in runs.items()]

    def _runs(self) -> dict[str, Run]:
        """Each part that has a container, in start order."""
        found = {c.labels.get(PART, ""): c for c in self._ours()}
        names = [p.name for p in (EMBEDDED_REDIS, *CONTROL_PROGRAMS) if p.name in found]
        runs = {name: self.engine.run(found[name].id) for name in names}
        return {name: run for name, run in runs.items() if run is not None}

    def _ours(self) -> list[Container]:
        return self.engine.containers((f"emp.fleet={self._fleet}", f"emp.folder={self._folder}", PART))

    # -- acting

    def _start(self) -> bool:
        with locked(self._layout.control / ".lock"):
            if any(run.status == "running" for run in self._runs().values()):
                return False
            self._up()
            return True

    def refuse_ended(self) -> None:
        """The engine starts again what ended, and `programs` tells when that does not help."""

    async def start_stopped(self) -> None:
        await asyncio.to_thread(self._up)

    def _up(self) -> None:
        """Make all parts as the file says; those that are so run on."""
        image = self._containers.image
        if lacking(self.engine, [image]):
            raise EmpError(f"{self.engine.named} has no image {image}", hint="`emp images build --control` makes it")
        compose(self.engine.host, self.file, self._project, ["up", "-d", "--no-build", "--remove-orphans"])

    async def reload(self) -> None:
        await asyncio.to_thread(self._reload)

    def _reload(self) -> None:
        """A part whose container is another now has begun with the new settings already."""
        before = {c.id for c in self._ours()}
        self._up()
        daemons = {p.name for p in CONTROL_PROGRAMS}
        kept = sorted(daemons & {c.labels[PART] for c in self._ours() if c.id in before})
        if kept:
            compose(self.engine.host, self.file, self._project, ["restart", *kept])

    async def silence(self, name: str) -> None:
        """One that was stopped by name stays so, over a restart of the engine too."""
        for container in await asyncio.to_thread(self._ours):
            if container.labels.get(PART) == name:
                await asyncio.to_thread(self.engine.stop, container.id, timeout_s=PLANE_SILENCE_S)

    async def stop(self) -> None:
        await asyncio.to_thread(self._down)

    def _down(self) -> None:
        if self.file.exists():
            compose(self.engine.host, self.file, self._project, ["down", "--timeout", str(round(PLANE_STOP_S))])
        self.engine.remove_containers((f"emp.fleet={self._fleet}", f"emp.folder={self._folder}", PART))


def _info(name: str, run: Run) -> ProcessInfo:
    state = _STATES.get(run.status, "BACKOFF")
    if state == "BACKOFF" and run.restarts >= GIVEN_UP_AFTER:
        state = "FATAL"
    who = identify(run.pid) if run.pid else None
    return ProcessInfo(
        name=name,
        group=name,
        statename=state,
        start=started_ms(who) // 1000 if who else 0,
        stop=0,
        exitstatus=run.exit_code,
        pid=run.pid,
        spawnerr=run.error,
    )


def _group(socket: Path) -> int:
    """The group that may use the engine's socket."""
    try:
        return socket.stat().st_gid
    except OSError as e:
        hint = "start Docker, or name its address in DOCKER_HOST"
        raise Unreachable(f"the engine at unix://{socket} does not answer: {e.strerror}", hint=hint) from e


def _address(server: Listen) -> tuple[str, int]:
    parts = urlsplit(server.url)
    return parts.hostname or "", server.port


def _mounts(layout: Layout, artifacts: str) -> tuple[str, ...]:
    """The artifact store, where it is a folder outside the fleet's."""
    for scheme in ("file://", "local://"):
        folder = artifacts.removeprefix(scheme)
        if folder != artifacts and not Path(folder).is_relative_to(layout.root):
            return (folder,)
    return ()
