"""A Docker Engine of our own for the tests: its own data, socket, bridge and addresses; nothing is asked of another.

Images cannot come from a registry: the base is made by debootstrap once and kept in a folder of the user's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from emp_orch.control.images.build import DOCKERFILE
from emp_orch.control.images.pack import pack
from emp_orch.control.images.wheels import pinned
from emp_orch.images import MACHINE_IMAGE
from emp_orch.procident import identify, send, wait_end
from emp_orch.resources import read_text
from support.host.debian import alone, cache, host_suite, path, root_tar, run, tools
from support.stack.stack import until

# Beside docker's own defaults (172.17.0.0/12, 192.168.0.0/16), so that an engine of the host keeps what it has.
SUBNETS = ipaddress.IPv4Network("10.213.0.0/16")
PACKAGES = "python3,python3-venv,redis-server"
BASE = "emp-test-base:1"
REDIS = "emp-test-redis:1"
START_S = 60.0


def why_not() -> str:
    """Why no engine can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "a Docker Engine of our own needs root"
    needed = ("docker", "dockerd", "containerd", "iptables", "ip", "debootstrap", "sshd")
    missing = [tool for tool in needed if shutil.which(tool, path=path()) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (tests/system.sh installs them)"
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        return "docker has no compose plugin (tests/system.sh installs it)"
    return ""


class Engine:
    """One dockerd in a folder. Use as a context manager: at the end its containers and all it started are gone."""

    # What its processes are started with, to be elsewhere.
    inside: tuple[str, ...] = ()
    # What its configuration file says.
    config: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="empdk-", dir="/var/tmp"))  # a socket's path must be short
        self._place, subnet = _free_subnet()
        self.bridge = f"empdk{subnet.network_address.packed[2]}"
        # The first half is the engine's own bridge; the second is for the networks that are made in it.
        own, self._pool = subnet.subnets()
        self.gateway = str(own.network_address + 1)
        self._log = self.folder / "dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self.folder}/docker.sock"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.url}

    def __enter__(self) -> Self:
        self._drop_network()  # one that was killed may have left its bridge
        try:
            self._make_network()
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def _make_network(self) -> None:
        run(*self.inside, "ip", "link", "add", self.bridge, "type", "bridge")
        run(*self.inside, "ip", "address", "add", f"{self.gateway}/23", "dev", self.bridge)
        run(*self.inside, "ip", "link", "set", self.bridge, "up")

    def _drop_network(self) -> None:
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True, env=tools())

    def __exit__(self, *_: object) -> None:
        try:
            with suppress(AssertionError, subprocess.TimeoutExpired):
                if ids := self.docker("ps", "-aq").split():
                    self.docker("rm", "-f", "-v", *ids)
                self.docker("network", "prune", "-f")
            self.stop()
        finally:
            self._clean()

    def start(self) -> None:
        """Start dockerd and wait until it answers."""
        if self._containerd is None:
            self._containerd = self._start_containerd()
        argv = [
            "dockerd",
            "--containerd",
            self._containerd_socket,
            "--data-root",
            f"{self.folder}/data",
            "--exec-root",
            f"{self.folder}/exec",
        ]
        argv += ["--pidfile", f"{self.folder}/pid", *self._listening(), "--bridge", self.bridge]
        argv += ["--default-address-pool", f"base={self._pool},size=27", "--config-file", f"{self.folder}/none.json"]
        (self.folder / "none.json").write_text(json.dumps(self.config))
        # Two that begin at once would both make the same chains of the firewall, and one would fail.
        with alone("dockerd"):
            self._process = self._run_on(argv)
            until(f"an answer of dockerd{self._told()}", self._answers, within_s=START_S)

    def _listening(self) -> list[str]:
        return ["--host", self.url]

    @property
    def _containerd_socket(self) -> str:
        return f"{self.folder}/containerd.sock"

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        """A process apart, as on a host of anybody's: dockerd's own would end with it."""
        config = self.folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        argv = ["containerd", "--config", str(config), "--address", self._containerd_socket]
        argv += ["--root", f"{self.folder}/containerd", "--state", f"{self.folder}/exec/containerd"]
        process = self._run_on(argv)
        until("the socket of containerd", Path(self._containerd_socket).is_socket, within_s=START_S)
        return process

    def _run_on(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            argv = [*self.inside, *argv]
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=tools())

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"dockerd ended with {self._process.returncode}{self._told()}"
        asked = subprocess.run(["docker", "version"], env=self.env, capture_output=True, check=False, timeout=30)
        return asked.returncode == 0

    def _told(self) -> str:
        return "\n" + "\n".join(self._log.read_text(errors="replace").splitlines()[-15:]) if self._log.exists() else ""

    def stop(self, *, timeout_s: float = 60.0) -> None:
        """End dockerd in good order: it stops its containers."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End dockerd without a word; containers and containerd live on, as with a crash."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def docker(self, *args: str, timeout_s: float = 120.0, both: bool = False) -> str:
        """What `docker ARGS…` of this engine printed (`both`: on stderr as well); it must have succeeded."""
        argv = ["docker", *args]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if both else "")

    def inspect(self, name: str) -> dict[str, Any]:
        """`docker inspect` of one container or image."""
        (found,) = json.loads(self.docker("inspect", name))
        return dict(found)

    def status(self, name: str) -> str:
        """`running`, `exited`, …; empty when there is no such container."""
        asked = ["docker", "inspect", "--format", "{{.State.Status}}", name]
        done = subprocess.run(asked, env=self.env, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout.strip()

    def _clean(self) -> None:
        """End containerd and what outlived it (known by our folder in its arguments), unmount, and remove all of it."""
        if self._containerd is not None:
            self._containerd.kill()
            self._containerd.wait()
        for pid in _mentioning(str(self.folder)):
            if (who := identify(pid)) is not None:
                send(who, signal.SIGKILL)
                wait_end(who, 10.0)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        self._drop_network()
        _forget_rules(self.bridge)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._place)


def _forget_rules(bridge: str) -> None:
    """dockerd leaves its rules for `bridge` in the firewall."""
    for table in ("nat", "filter"):
        listed = subprocess.run(
            ["iptables", "-t", table, "-S"], env=tools(), capture_output=True, text=True, check=False
        )
        for words in (line.split() for line in listed.stdout.splitlines()):
            if words[0] == "-A" and bridge in words:
                argv = ["iptables", "--wait", "-t", table, "-D", *words[1:]]
                subprocess.run(argv, env=tools(), capture_output=True, check=False)


def _free_subnet() -> tuple[int, ipaddress.IPv4Network]:
    """Addresses that no other engine of these tests uses, as long as the returned descriptor is open."""
    for subnet in SUBNETS.subnets(new_prefix=22):
        lock = os.open(cache() / f".net-{subnet.network_address}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock, subnet
        os.close(lock)
    raise AssertionError(f"all of {SUBNETS} is in use")


def _mentioning(folder: str) -> list[int]:
    """The processes with `folder`, a name of our own making, in their arguments."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):
                if folder.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
    return found


# -- images


def load_base(engine: Engine) -> str:
    """Make the base image known to `engine`: Debian with Python, as BASE. Returns its name.

    Imported once: each import makes another id, and what was built on one base is not up to date on another.
    """
    tar = root_tar(host_suite(), PACKAGES)
    kept = tar.with_suffix(".image")
    with alone("base-image"):
        if not kept.exists():
            engine.docker("import", str(tar), BASE)
            part = kept.with_suffix(".part")
            engine.docker("save", "--output", str(part), BASE)
            part.replace(kept)
    engine.docker("load", "--input", str(kept))
    return BASE


def load_redis(engine: Engine) -> str:
    """A stand-in for the official Redis image, as REDIS: its entrypoint is redis-server."""
    change = 'ENTRYPOINT ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"]'
    engine.docker("import", "--change", change, str(root_tar(host_suite(), PACKAGES)), REDIS)
    return REDIS


@contextmanager
def own_engine() -> Iterator[Engine]:
    """An engine that holds the base image; skips the test, with the reason, where none can be."""
    if reason := why_not():
        pytest.skip(reason)
    with Engine() as engine:
        load_base(engine)
        yield engine


def emp_images(engine: Engine, *args: str) -> str:
    """What `emp images ARGS…` on `engine` printed; it must have succeeded."""
    argv = [sys.executable, "-m", "emp_orch", "images", *args]
    done = subprocess.run(argv, env=engine.env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def load_machine(engine: Engine) -> str:
    """Make emp's machine image known to `engine`, as a user does: by `emp images build`. Returns its name.

    Built once for a state of the source; who else needs it takes it from the cache.
    """
    base = engine.inspect(BASE)["Id"].encode()
    made_of = hashlib.sha256(base + pack() + repr(pinned()).encode() + read_text(DOCKERFILE).encode()).hexdigest()[:12]
    kept = cache() / f"machine-{made_of}.tar"
    with alone("machine"):
        if kept.exists():
            engine.docker("load", "--input", str(kept))
            return MACHINE_IMAGE
        emp_images(engine, "build", "--base", BASE)
        for old in cache().glob("machine-*.tar"):
            old.unlink()
        part = kept.with_suffix(".part")
        engine.docker("save", "--output", str(part), MACHINE_IMAGE)
        part.replace(kept)
    return MACHINE_IMAGE
