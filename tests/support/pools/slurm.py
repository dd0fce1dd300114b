"""A Slurm of two nodes on this host, in a folder of its own: two GPUs a node that are plain devices, its own munged."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.redis.server import free_port

_TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
_UP_S = 30.0

_CONF = """\
ClusterName=emptest
SlurmctldHost={host}(127.0.0.1)
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
KillWait=3
MessageTimeout=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={one} CPUs=2 RealMemory=1000 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={two} CPUs=2 RealMemory=1000 Gres=gpu:1
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
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._pid_files: list[Path] = []

    def write(self) -> None:
        host = socket.gethostname().partition(".")[0]
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        self.folder.chmod(0o755)
        text = _CONF.format(folder=self.folder, host=host, port=free_port(), one=free_port(), two=free_port())
        self.conf.write_text(text)
        for node in ("n1", "n2"):
            # Slurm gives a job its GPU's number only where that is a device: these are /dev/null's.
            os.mknod(self.folder / f"{node}-gpu0", 0o20600, os.makedev(1, 3))
        gres = "".join(
            f"NodeName={node} Name=gpu File={self.folder}/{node}-gpu0 Flags=nvidia_gpu_env\n" for node in ("n1", "n2")
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
        for node in ("n1", "n2"):
            self._daemon("slurmd", "-N", node, "-f", str(self.conf), pid_file=f"{node}.pid")
        deadline = time.monotonic() + _UP_S
        while self.tool("sinfo", "-h", "-N", "-o", "%T").split() != ["idle", "idle"]:
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.1)

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


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    need_slurm()
    slurm = Slurm(folder)
    slurm.write()
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
