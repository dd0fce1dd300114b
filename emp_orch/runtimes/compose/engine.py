"""One Docker Engine: its API through the Docker SDK.

Every call may block for as long as the engine takes to find that it is out of reach; callers use threads. Only
containers with our labels are ever seen.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from docker.errors import APIError, NotFound

from emp_orch.errors import EmpError
from emp_orch.runtimes.compose.connection import Connection
from emp_orch.runtimes.compose.containers import Container, Figures, Life, Run, engine_time, nanoseconds

# Of what a container printed, the end is read.
TAIL_LINES = 20
TAIL_BYTES = 32 * 1024


class Engine(Connection):
    """The engine of one Docker host: its containers, and their networks and volumes."""

    def containers(self, labels: Sequence[str]) -> list[Container]:
        """All containers that have every one of `labels` (`name=value`), stopped ones too: one call."""
        with self.asking() as client:
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
        with self.asking() as client:
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
        between = {"since": engine_time(since_ns), "until": engine_time(until_ns)}
        with self.asking() as client:
            told = cast(Any, client).events(decode=True, filters={"container": container_id, "event": "die"}, **between)
            events = [e for e in told if isinstance(e, dict)]
        found = []
        for event in events:
            code = str(((event.get("Actor") or {}).get("Attributes") or {}).get("exitCode", ""))
            found.append((int(event.get("timeNano", 0)), int(code) if code.isdecimal() else None))
        return found

    def printed(self, container_id: str) -> str:
        """The end of what the container printed, of all its runs; empty where its log cannot be read."""
        with self.asking() as client:
            try:
                said = client.logs(container_id, stdout=True, stderr=True, tail=TAIL_LINES)
            except APIError:
                return ""
        return bytes(said)[-TAIL_BYTES:].decode(errors="replace")

    def run(self, container_id: str) -> Run | None:
        """How the container runs, or ran last; None when it is gone."""
        with self.asking() as client:
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
        with self.asking() as client:
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
        with self.asking() as client:
            made = client.exec_create(container_id, list(argv), stdin=False)
            said, wrong = client.exec_start(made["Id"], demux=True)
            code = client.exec_inspect(made["Id"])["ExitCode"]
        if code != 0:
            last = (wrong or said or b"").decode(errors="replace").strip().splitlines()[-1:]
            raise EmpError(f"{argv[0]} in container {container_id[:12]}: exit {code}{''.join(f', {w}' for w in last)}")
        return bytes(said or b"")

    def stop(self, container_id: str, *, timeout_s: float) -> None:
        """Stop in good order, by force after `timeout_s`; one that does not run is fine."""
        with self.asking() as client:
            try:
                if client.inspect_container(container_id)["State"].get("Paused"):
                    client.unpause(container_id)
                client.stop(container_id, timeout=int(timeout_s))
            except NotFound:
                return

    def has_network(self, name: str) -> bool:
        with self.asking() as client:
            return any(n.get("Name") == name for n in client.networks(names=[name]))

    def remove_volume(self, name: str) -> None:
        with self.asking() as client:
            try:
                client.remove_volume(name)
            except NotFound:
                return

    def volume_labels(self, labels: Sequence[str]) -> list[dict[str, str]]:
        """The labels of each volume that has all of `labels`."""
        return [{str(k): str(v) for k, v in (found.get("Labels") or {}).items()} for found in self._volumes(labels)]

    def _volumes(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        with self.asking() as client:
            return list(client.volumes(filters={"label": list(labels)}).get("Volumes") or [])

    def remove_volumes(self, labels: Sequence[str]) -> list[str]:
        """Remove the volumes that have all of `labels`: their names."""
        names = sorted(str(found["Name"]) for found in self._volumes(labels))
        for name in names:
            self.remove_volume(name)
        return names

    def remove_networks(self, labels: Sequence[str]) -> None:
        """Remove the networks that have all of `labels`."""
        with self.asking() as client:
            for network in client.networks(filters={"label": list(labels)}):
                client.remove_network(str(network["Id"]))

    def remove_containers(self, labels: Sequence[str]) -> None:
        """Remove what has all of `labels`, by force."""
        for container in self.containers(labels):
            self.remove_container(container.id)

    def remove_container(self, container_id: str) -> None:
        """By force; one that is gone is fine."""
        with self.asking() as client:
            try:
                client.remove_container(container_id, force=True)
            except NotFound:
                return

    def unpause(self, container_id: str) -> None:
        with self.asking() as client:
            client.unpause(container_id)

    def connect(self, container_id: str, network: str, *, alias: str) -> None:
        """Put the container that runs into `network`, where others find it as `alias`."""
        with self.asking() as client:
            client.connect_container_to_network(container_id, network, aliases=[alias])

    def put_files(
        self, container_id: str, under: str, folder: str, files: Mapping[str, bytes], *, uid: int, gid: int
    ) -> None:
        """Write `files` (0600, of `uid:gid`) into `under/folder` of a container; that must be on a volume."""
        with self.asking() as client:
            client.put_archive(container_id, under, _archive(folder, files, uid, gid))

    def gateway(self) -> str:
        """The address of this host that containers know as host.docker.internal."""
        with self.asking() as client:
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
        with self.asking() as client:
            # Without a read timeout: that nothing happens is no failure. TCP keeps watch.
            streaming = client.events(decode=True, filters={"type": "container", "label": list(labels)})
            for event in streaming:
                if isinstance(event, dict) and (container_id := event.get("id")):
                    yield str(container_id)


def _archive(folder: str, files: Mapping[str, bytes], uid: int, gid: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in {"": b"", **files}.items():
            info = tarfile.TarInfo(f"{folder}/{name}".rstrip("/"))
            info.uid, info.gid, info.size = uid, gid, len(content)
            info.type, info.mode = (tarfile.REGTYPE, 0o600) if name else (tarfile.DIRTYPE, 0o700)
            tar.addfile(info, io.BytesIO(content) if name else None)
    return packed.getvalue()
