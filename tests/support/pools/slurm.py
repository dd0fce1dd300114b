"""A Slurm of two nodes on this host, in a folder of its own: a GPU a node that is a plain device, its own munged.

Its nodes may be hosts apart: each with a network and a folder of its own, and all of one can be killed at once.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.host.debian import run, tools
from support.redis.server import free_port

NODES = ("n1", "n2")
_TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
_UP_S = 30.0

_CONF = """\
ClusterName=emptest
SlurmctldHost={host}({here})
SlurmctldPort={port}
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerParameters=sched_interval=2,bf_interval=2
GresTypes=gpu
MpiDefault=none
ReturnToService=2
DefMemPerCPU=100
KillWait={kill_wait_s}
SlurmdTimeout={missed_s}
MessageTimeout=5
NodeName=n1 NodeHostname={host} NodeAddr={addr_one} Port={one} CPUs=2 RealMemory=1000 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr={addr_two} Port={two} CPUs=2 RealMemory=1000 Gres=gpu:1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=1-0 State=UP
"""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def need_slurm() -> None:
    """Skips where Slurm is not installed, or this is not root; fails in CI."""
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=_path()) is None]
    if missing or os.getuid() != 0:
        why = f"needs slurm-wlm and munge: {', '.join(missing)}" if missing else "needs root"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)


class Slurm:
    """`here`: the address of this host that its nodes reach."""

    here = "127.0.0.1"
    _timing: Mapping[str, int] = {"kill_wait_s": 3, "missed_s": 300}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._pid_files: list[Path] = []

    def write(self) -> None:
        self.make_hosts()
        host = socket.gethostname().partition(".")[0]
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        self.folder.chmod(0o755)
        text = _CONF.format(
            folder=self.folder,
            host=host,
            here=self.here,
            port=free_port(),
            one=free_port(),
            two=free_port(),
            **self._timing,
            **{f"addr_{n}": address for n, address in zip(("one", "two"), self._addresses(), strict=True)},
        )
        self.conf.write_text(text)
        for node in NODES:
            # Slurm gives a job its GPU's number only where that is a device: these are /dev/null's.
            os.mknod(self.folder / f"{node}-gpu0", 0o20600, os.makedev(1, 3))
        gres = "".join(
            f"NodeName={node} Name=gpu File={self.folder}/{node}-gpu0 Flags=nvidia_gpu_env\n" for node in NODES
        )
        (self.folder / "gres.conf").write_text(gres)

    def start(self) -> None:
        named = {n: f"{self.folder}/munge.{n}" for n in ("sock", "pid", "log", "seed")}
        self._daemon(
            "munged",
            "--force",
            f"--key-file={self.folder}/munge.key",
            f"--socket={named['sock']}",
            f"--pid-file={named['pid']}",
            f"--log-file={named['log']}",
            f"--seed-file={named['seed']}",
            pid_file="munge.pid",
        )
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        deadline = time.monotonic() + _UP_S
        while self.tool("sinfo", "-h", "-N", "-o", "%T").split() != ["idle", "idle"]:
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.1)

    def _addresses(self) -> tuple[str, str]:
        return ("127.0.0.1", "127.0.0.1")

    def make_hosts(self) -> None:
        """Its nodes are this host."""

    def start_node(self, node: str) -> None:
        self._daemon(*self._inside(node), "slurmd", "-N", node, "-f", str(self.conf), pid_file=f"{node}.pid")

    def _inside(self, node: str) -> tuple[str, ...]:
        """What a node's slurmd is started with, to be elsewhere."""
        return ()

    def start_controller(self) -> None:
        self._daemon("slurmctld", "-f", str(self.conf), pid_file="slurmctld.pid")

    def stop_controller(self) -> None:
        self._end(self.folder / "slurmctld.pid")

    def tool(self, *argv: str) -> str:
        done = subprocess.run(argv, env=self._environ(), capture_output=True, text=True, timeout=30, check=False)
        return done.stdout

    def stop(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.tool("scancel", "--me")
            self.tool("scancel", "--me", "--full", "--signal=KILL")
            # Only slurmd ends what a job left: no daemon goes before the jobs have.
            deadline = time.monotonic() + _UP_S
            while self.tool("squeue", "--noheader") and time.monotonic() < deadline:
                time.sleep(0.1)
        for pid_file in reversed(self._pid_files):
            self._end(pid_file)

    def _environ(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": _path()}

    def _daemon(self, *argv: str, pid_file: str) -> None:
        done = subprocess.run(argv, env=self._environ(), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        if (path := self.folder / pid_file) not in self._pid_files:
            self._pid_files.append(path)

    def _end(self, pid_file: Path) -> None:
        """The daemon of this file, and wait until it is gone; by force in the end."""
        try:
            pid = int(pid_file.read_text())
        except (OSError, ValueError):
            return
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + 10
                while Path(f"/proc/{pid}/stat").exists() and _state(pid) != "Z":
                    if time.monotonic() > deadline:
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                    time.sleep(0.05)
            finally:
                os.close(fd)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "Z"


class SlurmOfHosts(Slurm):
    """Its nodes are hosts apart, as far as a program there can tell: a network of their own, and what is in `own` is
    another folder on each. A node that is gone is missed after some seconds, and a job that is told to end has time.
    """

    _timing: Mapping[str, int] = {"kill_wait_s": 30, "missed_s": 15}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.own = folder / "own"
        self._bridge, self._net = _free_bridge()
        self.here = f"{self._net}.1"

    def _addresses(self) -> tuple[str, str]:
        return (f"{self._net}.11", f"{self._net}.12")

    def make_hosts(self) -> None:
        self.own.mkdir()
        run("ip", "address", "add", f"{self.here}/24", "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")
        for node, address in zip(NODES, self._addresses(), strict=True):
            (self.folder / f"{node}-own").mkdir()
            space, end = f"{self._bridge}{node}", f"{self._bridge}{node}"
            run("ip", "netns", "add", space)
            run("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "link", "set", end, "master", self._bridge, "up")
            for words in (
                ["link", "set", "lo", "up"],
                ["address", "add", f"{address}/24", "dev", "eth0"],
                ["link", "set", "eth0", "up"],
                ["route", "add", "default", "via", self.here],
            ):
                run("nsenter", f"--net=/run/netns/{space}", "ip", *words)

    def _inside(self, node: str) -> tuple[str, ...]:
        mounts = f'mount --bind {self.folder}/{node}-own {self.own} && exec "$@"'
        return ("nsenter", f"--net=/run/netns/{self._bridge}{node}", "unshare", "--mount", "sh", "-c", mounts, "sh")

    def die(self, node: str) -> None:
        """As if the power went: all that runs on the node, and what was in its own folder."""
        self._kill_all(node)
        shutil.rmtree(self.folder / f"{node}-own")
        (self.folder / f"{node}-own").mkdir()

    def running_on(self, node: str) -> list[int]:
        """The processes of a node."""
        space = Path("/run/netns") / f"{self._bridge}{node}"
        if not space.exists():
            return []
        found, own = [], space.stat().st_ino
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with suppress(OSError):
                    if (process / "ns" / "net").stat().st_ino == own and _state(int(process.name)) != "Z":
                        found.append(int(process.name))
        return found

    def _kill_all(self, node: str) -> None:
        deadline = time.monotonic() + _UP_S
        while pids := self.running_on(node):
            assert time.monotonic() < deadline, pids
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def stop(self) -> None:
        super().stop()
        for node in NODES:
            self._kill_all(node)
            subprocess.run(["ip", "netns", "delete", f"{self._bridge}{node}"], check=False, env=tools())
            subprocess.run(["ip", "link", "delete", f"{self._bridge}{node}"], check=False, env=tools())
        subprocess.run(["ip", "link", "delete", self._bridge], check=False, env=tools())


def _free_bridge() -> tuple[str, str]:
    """The name of a bridge that was made, and its network without the last number."""
    for number in range(250):
        name = f"empsl{number}"
        made = subprocess.run(
            ["ip", "link", "add", name, "type", "bridge"], capture_output=True, check=False, env=tools()
        )
        if made.returncode == 0:
            return name, f"10.212.{number}"
    raise AssertionError("no bridge could be made")


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    need_slurm()
    with _running(Slurm(folder)) as slurm:
        yield slurm


@contextmanager
def slurm_of_hosts(folder: Path) -> Iterator[SlurmOfHosts]:
    need_slurm()
    slurm = SlurmOfHosts(folder)
    with _running(slurm):
        yield slurm


@contextmanager
def _running(slurm: Slurm) -> Iterator[Slurm]:
    try:
        slurm.write()
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
