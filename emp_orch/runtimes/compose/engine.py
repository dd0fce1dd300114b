"""One Docker Engine: its API through the Docker SDK, and `docker compose` for what one file describes.

Every call may block for as long as the engine takes to find that it is out of reach; callers use threads. Only
containers with our labels are ever seen.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import requests
from docker.api.client import APIClient
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, NotFound
from docker.tls import TLSConfig
from msgspec import Struct

from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.model.fleet import DockerHost
from emp_orch.fleet.model.hosts import LOCAL, is_here
from emp_orch.host.proxies import for_engine
from emp_orch.images import built_here
from emp_orch.runtimes.compose.context import engine_of
from emp_orch.runtimes.compose.ssh import SshAdapter
from emp_orch.settings import EngineAddress
from emp_orch.units import show_bytes

# For an answer, not for work: a stop waits longer, and says so itself.
ANSWER_S = 5.0
# Of what `docker compose` printed, the end is shown.
SHOWN_LINES = 6
# Of what a container printed, the end is read.
TAIL_LINES = 20
TAIL_BYTES = 32 * 1024
# How long a pull may say nothing.
PULL_S = 300.0
_PULL = (
    "check its name, and `docker login` where its registry asks for it; your own images must be built or loaded there"
)
# `docker compose up` may have to pull an image.
COMPOSE_S = 900.0


class EngineAway(Unreachable):
    """The engine does not answer, or there is no way to ask it."""


class Container(Struct, frozen=True, kw_only=True):
    """One of our containers. `state` is the engine's word: running, exited, created, paused, restarting …; `networks`
    are those that it is in, by name, `mounts` what it sees, by its own paths.
    """

    id: str
    state: str
    status: str
    labels: dict[str, str]
    networks: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


class Run(Struct, frozen=True, kw_only=True):
    """A container's present or last run. Times are as the engine writes them; `pid` is the host's, 0 without a run."""

    status: str
    pid: int
    started_at: str
    finished_at: str
    exit_code: int
    restarts: int
    error: str


class Life(Struct, frozen=True, kw_only=True):
    """`state` as Container's. Of its present or last run: when it began and ended, as the engine writes it (RFC 3339),
    year 1 for never. `exit_code` is that of the last run once it has ended, `restarts` how often the engine started it
    by itself, `memory_limit` in bytes, 0 without one.
    """

    state: str
    started_at: str
    finished_at: str
    exit_code: int
    error: str
    oom_killed: bool
    restarts: int
    memory_limit: int
    image: str


class Figures(Struct, frozen=True, kw_only=True):
    """What a container has used: processor time since its start, memory now without what the kernel could drop, and the
    most that it may have. `at_s` is when, by the engine's clock.
    """

    at_s: float
    cpu_s: float
    memory: int
    limit: int


class Pulling:
    """How far a pull is, by what its engine tells of each layer."""

    def __init__(self) -> None:
        self.error = ""
        self._layers: dict[str, tuple[int, int]] = {}
        self._shown = ""

    def step(self, told: object) -> str:
        """What there is to say that was not said before; empty for nothing."""
        if not isinstance(told, dict):
            return ""
        self.error = str(told.get("error") or self.error)
        detail = told.get("progressDetail") or {}
        if told.get("status") == "Downloading" and isinstance(detail.get("total"), int):
            self._layers[str(told.get("id"))] = (int(detail.get("current", 0)), detail["total"])
        done, total = (sum(n) for n in zip(*self._layers.values(), strict=True)) if self._layers else (0, 0)
        shown = f"{show_bytes(done)} of {show_bytes(total)}" if total else ""
        if shown == self._shown:
            return ""
        self._shown = shown
        return shown


class Engine:
    """The engine of one Docker host. Connections are made when they are needed, and made anew after a failure."""

    def __init__(self, host: EngineAddress, *, answer_s: float = ANSWER_S) -> None:
        self.host = host
        self._answer_s = answer_s
        self._client: APIClient | None = None

    @property
    def named(self) -> str:
        """For people: which host, and where."""
        return f"Docker host {self.host.name} ({self.host.url})"

    # -- the SDK

    @contextmanager
    def _asking(self) -> Iterator[APIClient]:
        """A client; what goes wrong is told as ours, and a broken connection is not used again."""
        try:
            if self._client is None:
                self._client = _connected(self.host, self._answer_s)
            yield self._client
        except NotFound as e:
            raise EmpError(f"{self.named}: {e.explanation or e}") from e
        except APIError as e:
            raise EmpError(f"{self.named} refused: {e.explanation or e}") from e
        except (DockerException, requests.RequestException, OSError) as e:
            self.close()
            raise EngineAway(f"{self.named} does not answer: {_reason(e)}", hint=_hint(self.host)) from e

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def containers(self, labels: Sequence[str]) -> list[Container]:
        """All containers that have every one of `labels` (`name=value`), stopped ones too: one call."""
        with self._asking() as client:
            found = client.containers(all=True, filters={"label": list(labels)})
        return [
            Container(
                id=str(c["Id"]),
                state=str(c.get("State", "")),
                status=str(c.get("Status", "")),
                labels={str(k): str(v) for k, v in (c.get("Labels") or {}).items()},
                networks=tuple(sorted(map(str, (c.get("NetworkSettings") or {}).get("Networks") or ()))),
                mounts=tuple(sorted(str(m.get("Destination", "")) for m in c.get("Mounts") or ())),
            )
            for c in found
        ]

    def life(self, container_id: str) -> Life:
        """When the container's present or last run began, and how that ended."""
        with self._asking() as client:
            found = client.inspect_container(container_id)
        state = found["State"]
        return Life(
            state=str(state.get("Status", "")),
            started_at=str(state.get("StartedAt", "")),
            finished_at=str(state.get("FinishedAt", "")),
            exit_code=int(state.get("ExitCode", 0)),
            error=str(state.get("Error", "")),
            oom_killed=bool(state.get("OOMKilled", False)),
            restarts=int(found.get("RestartCount", 0)),
            memory_limit=int((found.get("HostConfig") or {}).get("Memory") or 0),
            image=str(found.get("Image", "")),
        )

    def ends(self, container_id: str, since_ns: int, until_ns: int) -> list[tuple[int, int | None]]:
        """When (ns) the container ended between two times in the past, and with which exit code, as far as the engine
        remembers: its last few hundred events.
        """
        between = {"since": _at(since_ns), "until": _at(until_ns)}
        with self._asking() as client:
            told = cast(Any, client).events(decode=True, filters={"container": container_id, "event": "die"}, **between)
            events = [e for e in told if isinstance(e, dict)]
        found = []
        for event in events:
            code = str(((event.get("Actor") or {}).get("Attributes") or {}).get("exitCode", ""))
            found.append((int(event.get("timeNano", 0)), int(code) if code.isdecimal() else None))
        return found

    def printed(self, container_id: str) -> str:
        """The end of what the container printed, of all its runs; empty where its log cannot be read."""
        with self._asking() as client:
            try:
                said = client.logs(container_id, stdout=True, stderr=True, tail=TAIL_LINES)
            except APIError:
                return ""
        return bytes(said)[-TAIL_BYTES:].decode(errors="replace")

    def run(self, container_id: str) -> Run | None:
        """How the container runs, or ran last; None when it is gone."""
        with self._asking() as client:
            try:
                found = client.inspect_container(container_id)
            except NotFound:
                return None
        state = found["State"]
        return Run(
            status=str(state.get("Status", "")),
            pid=int(state.get("Pid", 0)),
            started_at=str(state.get("StartedAt", "")),
            finished_at=str(state.get("FinishedAt", "")),
            exit_code=int(state.get("ExitCode", 0)),
            restarts=int(found.get("RestartCount", 0)),
            error=str(state.get("Error", "")),
        )

    def figures(self, container_id: str) -> Figures:
        """What the container uses, without waiting for a second look. Raises EmpError when it has ended."""
        with self._asking() as client:
            # A keyword that the stubs do not know yet; engines from API 1.41 (20.10) on have it.
            found = cast(Any, client).stats(container_id, stream=False, one_shot=True)
        memory, cpu = found.get("memory_stats") or {}, found.get("cpu_stats") or {}
        if "usage" not in memory:
            raise EmpError(f"{self.named}: container {container_id[:12]} has ended, or its cgroup is not read")
        kept = memory.get("stats") or {}
        # cgroup v2 and v1 name what the kernel keeps of files differently.
        droppable = kept.get("inactive_file", kept.get("total_inactive_file", 0))
        return Figures(
            at_s=nanoseconds(str(found.get("read", ""))) / 1e9,
            cpu_s=int((cpu.get("cpu_usage") or {}).get("total_usage", 0)) / 1e9,
            memory=max(0, int(memory["usage"]) - int(droppable)),
            limit=int(memory.get("limit", 0)),
        )

    def output(self, container_id: str, argv: Sequence[str]) -> bytes:
        """What `argv` prints in the container. Raises EmpError with the end of what it said when it fails."""
        with self._asking() as client:
            made = client.exec_create(container_id, list(argv), stdin=False)
            said, wrong = client.exec_start(made["Id"], demux=True)
            code = client.exec_inspect(made["Id"])["ExitCode"]
        if code != 0:
            last = (wrong or said or b"").decode(errors="replace").strip().splitlines()[-1:]
            raise EmpError(f"{argv[0]} in container {container_id[:12]}: exit {code}{''.join(f', {w}' for w in last)}")
        return bytes(said or b"")

    def stop(self, container_id: str, *, timeout_s: float) -> None:
        """Stop in good order, by force after `timeout_s`; one that does not run is fine."""
        with self._asking() as client:
            try:
                if client.inspect_container(container_id)["State"].get("Paused"):
                    client.unpause(container_id)
                client.stop(container_id, timeout=int(timeout_s))
            except NotFound:
                return

    def image(self, name: str) -> dict[str, Any] | None:
        """`docker image inspect` of an image by its name or id; None when there is none."""
        with self._asking() as client:
            try:
                return dict(cast(Any, client).inspect_image(name))
            except NotFound:
                return None

    def image_id(self, name: str) -> str:
        """What `name` means here; empty when there is no such image."""
        return str((self.image(name) or {}).get("Id", ""))

    def lacking(self, images: Iterable[str]) -> tuple[str, ...]:
        """Those of `images` that are not here, and that no registry has."""
        return tuple(sorted(i for i in set(images) if built_here(i) and not self.image_id(i)))

    def tag(self, image_id: str, name: str) -> None:
        """Let `name` mean that image."""
        repository, _, tag = name.rpartition(":")
        with self._asking() as client:
            client.tag(image_id, repository, tag)

    def pull(self, reference: str, tell: Callable[[str], None]) -> None:
        """Pull an image by name or digest; `tell` how far it is, from time to time. Raises EmpError with the reason."""
        what = f"{reference} on Docker host {self.host.name}"
        tell(f"pulling {what}")
        patient = Engine(self.host, answer_s=PULL_S)
        progress = Pulling()
        try:
            with patient._asking() as client:
                for step in client.pull(reference, stream=True, decode=True):
                    if told := progress.step(step):
                        tell(f"pulling {told}: {what}")  # a terminal's width may end within the name
        except EngineAway:
            raise
        except EmpError as e:
            raise EmpError(f"{self.named} cannot pull {reference}: {e.message.partition(': ')[2]}", hint=_PULL) from e
        finally:
            patient.close()
        if progress.error:
            raise EmpError(f"{self.named} cannot pull {reference}: {progress.error}", hint=_PULL)

    def has_network(self, name: str) -> bool:
        with self._asking() as client:
            return any(n.get("Name") == name for n in client.networks(names=[name]))

    def remove_volume(self, name: str) -> None:
        with self._asking() as client:
            try:
                client.remove_volume(name)
            except NotFound:
                return

    def volume_labels(self, labels: Sequence[str]) -> list[dict[str, str]]:
        """The labels of each volume that has all of `labels`."""
        return [{str(k): str(v) for k, v in (found.get("Labels") or {}).items()} for found in self._volumes(labels)]

    def _volumes(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        with self._asking() as client:
            return list(client.volumes(filters={"label": list(labels)}).get("Volumes") or [])

    def remove_volumes(self, labels: Sequence[str]) -> list[str]:
        """Remove the volumes that have all of `labels`: their names."""
        names = sorted(str(found["Name"]) for found in self._volumes(labels))
        for name in names:
            self.remove_volume(name)
        return names

    def remove_networks(self, labels: Sequence[str]) -> None:
        """Remove the networks that have all of `labels`."""
        with self._asking() as client:
            for network in client.networks(filters={"label": list(labels)}):
                client.remove_network(str(network["Id"]))

    def remove_containers(self, labels: Sequence[str]) -> None:
        """Remove what has all of `labels`, by force."""
        for container in self.containers(labels):
            self.remove_container(container.id)

    def remove_container(self, container_id: str) -> None:
        """By force; one that is gone is fine."""
        with self._asking() as client:
            try:
                client.remove_container(container_id, force=True)
            except NotFound:
                return

    def unpause(self, container_id: str) -> None:
        with self._asking() as client:
            client.unpause(container_id)

    def connect(self, container_id: str, network: str, *, alias: str) -> None:
        """Put the container that runs into `network`, where others find it as `alias`."""
        with self._asking() as client:
            client.connect_container_to_network(container_id, network, aliases=[alias])

    def put_files(
        self, container_id: str, under: str, folder: str, files: Mapping[str, bytes], *, uid: int, gid: int
    ) -> None:
        """Write `files` (0600, of `uid:gid`) into `under/folder` of a container; that must be on a volume."""
        with self._asking() as client:
            client.put_archive(container_id, under, _archive(folder, files, uid, gid))

    def gateway(self) -> str:
        """The address of this host that containers know as host.docker.internal."""
        with self._asking() as client:
            bridge = client.inspect_network("bridge")
        for config in bridge.get("IPAM", {}).get("Config") or []:
            if gateway := config.get("Gateway"):
                return str(gateway)
        raise EmpError(
            f"{self.named} has no gateway address on its bridge network",
            hint="set redis.machine_url in emp.yaml to a URL by which containers reach Redis",
        )

    def events(self, labels: Sequence[str]) -> Iterator[str]:
        """The id of each of our containers that something happens to, until the connection breaks."""
        with self._asking() as client:
            # Without a read timeout: that nothing happens is no failure. TCP keeps watch.
            streaming = client.events(decode=True, filters={"type": "container", "label": list(labels)})
            for event in streaming:
                if isinstance(event, dict) and (container_id := event.get("id")):
                    yield str(container_id)

    # -- docker compose

    def compose(self, file: Path, project: str, words: Sequence[str]) -> None:
        """Run `docker compose` on `file`. Raises EmpError with what it said."""
        argv = [*self.command(), "compose", "-p", project, "-f", str(file), "--ansi", "never", *words]
        try:
            ran = subprocess.run(  # argv, no shell
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMPOSE_S,
                check=False,
                env=self.environment(),
            )
        except subprocess.TimeoutExpired:
            raise EngineAway(f"{self.named}: `docker compose {words[0]}` took more than {COMPOSE_S:.0f} s") from None
        if ran.returncode == 0:
            return
        said = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
        if any("'compose' is not a docker command" in line or "unknown shorthand flag" in line for line in said):
            raise EmpError(
                "docker has no `compose` command here", hint="install the Compose plugin, version 2.17 or newer"
            )
        if any("Cannot connect to the Docker daemon" in line for line in said):
            raise EngineAway(f"{self.named} does not answer", hint=_hint(self.host))
        what = "; ".join(said[-SHOWN_LINES:]) or f"exit {ran.returncode}"
        raise EmpError(f"{self.named}: `docker compose {' '.join(words)}` failed: {what}")

    def environment(self) -> dict[str, str]:
        """For `command`."""
        return for_engine(self.host.url, os.environ)

    def command(self) -> list[str]:
        """The docker command line, told of this engine: its address and TLS files. Raises EmpError without one."""
        docker_cli = shutil.which("docker")
        if docker_cli is None:
            raise EmpError(
                "there is no `docker` on PATH", hint="install the Docker command line and its Compose plugin"
            )
        tls = self.host.ca or self.host.cert
        files = {"--tlscacert": self.host.ca, "--tlscert": self.host.cert, "--tlskey": self.host.key}
        options = ["--tlsverify", *(w for k, v in files.items() if v for w in (k, v))] if tls else []
        return [docker_cli, "-H", self.host.url, *options]


def local_host() -> EngineAddress:
    """The engine that the docker command line of this host speaks with. Raises UsageError for a context without one."""
    named = engine_of(os.environ)
    kind = {Path(file).stem: file for file in named.tls}
    return EngineAddress(name=LOCAL, url=named.url, here=is_here(DockerHost(docker=named.url, tls=None)), **kind)


def _connected(host: EngineAddress, answer_s: float) -> APIClient:
    if host.url.startswith("ssh://"):
        way = SshAdapter(host.url)  # both clients speak over one connection: on a far host each takes seconds to begin
        spoken = _over(way, answer_s, DEFAULT_DOCKER_API_VERSION).version(api_version=False)
        return _over(way, answer_s, str(spoken["ApiVersion"]))
    tls = None
    if host.ca or host.cert:
        pair = (host.cert, host.key) if host.cert else None
        tls = TLSConfig(client_cert=pair, ca_cert=host.ca or None, verify=True)
    return _Client(base_url=host.url, tls=cast(Any, tls or False), timeout=cast(Any, answer_s), version="auto")


def _over(way: SshAdapter, answer_s: float, version: str) -> APIClient:
    # A socket that is never opened: what is mounted speaks for it.
    client = _Client(base_url="unix:///ssh", timeout=cast(Any, answer_s), version=version)
    client.mount("http+docker://", way)
    return client


class _Client(APIClient):
    """The SDK's, which no variable leads elsewhere: it goes through no proxy, and trusts the CA that it is told to."""

    # Its base sets this to True, and asks the engine for its version before one could set it back.
    @property
    def trust_env(self) -> bool:
        return False

    @trust_env.setter
    def trust_env(self, _: bool) -> None:
        """It stays as it is."""


def _archive(folder: str, files: Mapping[str, bytes], uid: int, gid: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in {"": b"", **files}.items():
            info = tarfile.TarInfo(f"{folder}/{name}".rstrip("/"))
            info.uid, info.gid, info.size = uid, gid, len(content)
            info.type, info.mode = (tarfile.REGTYPE, 0o600) if name else (tarfile.DIRTYPE, 0o700)
            tar.addfile(info, io.BytesIO(content) if name else None)
    return packed.getvalue()


def nanoseconds(text: str) -> int:
    """RFC 3339, as the engine writes it, to nanoseconds since the epoch; 0 for what is none."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    try:
        at = datetime.fromisoformat(head).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return int(at.timestamp()) * 10**9 + (int(f"{fraction:0<9}"[:9]) if fraction.isdecimal() else 0)


def _at(ns: int) -> str:
    """A time as the engine takes it."""
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def _reason(e: BaseException) -> str:
    """The innermost cause: the SDK wraps it three times."""
    seen: set[int] = set()
    while id(e) not in seen:
        seen.add(id(e))
        inner = e.__cause__ or e.__context__ or next((a for a in e.args if isinstance(a, BaseException)), None)
        if inner is None:
            break
        e = inner
    return (e.strerror if isinstance(e, OSError) and e.strerror else str(e)) or type(e).__name__


def _hint(host: EngineAddress) -> str:
    if host.url.startswith("ssh://"):
        return f"try `docker -H {host.url} info`: it must answer without a question"
    if host.here:
        return (
            "start Docker, or name its address in DOCKER_HOST or a docker context; your user must be allowed to use it"
        )
    return "check the address, the firewall and the TLS files"
