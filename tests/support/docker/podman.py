"""A podman of our own for the tests: its own images and containers, without a daemon. It runs the pods of Kubernetes
manifests, in the network of this host.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.host.debian import path

# Containers may not ask for more open files and processes than this process itself may have.
_CONF = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
MOST_S = 120.0
ENOUGH = 4_096


def why_not() -> str:
    """Why podman cannot be used here; empty when it can."""
    if os.geteuid() != 0:
        return "a podman of our own needs root"
    missing = [tool for tool in ("podman", "catatonit") if shutil.which(tool, path=path()) is None]
    return f"not installed: {', '.join(missing)} (tests/system.sh installs them)" if missing else ""


def _may(kind: int) -> int:
    most = resource.getrlimit(kind)[1]
    return ENOUGH if most == resource.RLIM_INFINITY else min(ENOUGH, most)


class Podman:
    """All that it has lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._conf = folder / "containers.conf"
        self._conf.write_text(_CONF.format(files=_may(resource.RLIMIT_NOFILE), processes=_may(resource.RLIMIT_NPROC)))

    def run(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = ["podman", "--root", f"{self._folder}/root", "--runroot", f"{self._folder}/run", *args]
        # Without systemd nobody runs health checks by the clock.
        env = {**os.environ, "PATH": path(), "CONTAINERS_CONF": str(self._conf), "DISABLE_HC_SYSTEMD": "true"}
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=MOST_S, check=False, env=env)

    def ok(self, *args: str, stdin: str = "") -> str:
        """What `podman ARGS…` printed; it must have succeeded."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, f"podman {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def play(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Make and start what they say, as a node of a cluster would."""
        self.ok("kube", "play", "--network", "host", "-", stdin=yaml.safe_dump_all(documents))

    def down(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """End it in good order, and remove it with what it kept. As a node of a cluster does: containers first, within
        the time that the pod has. podman 4.3 does not look for that time, and ends the pod's own process, in whose
        namespace they are, beside them.
        """
        for pod in (d for d in documents if d["kind"] == "Pod"):
            name, spec = pod["metadata"]["name"], pod["spec"]
            boxes = [f"{name}-{container['name']}" for container in spec["containers"]]
            self.ok("stop", "--time", str(spec["terminationGracePeriodSeconds"]), *boxes)
        self.ok("kube", "down", "-", stdin=yaml.safe_dump_all(documents))
        self.ok("volume", "prune", "--force")

    def clear(self) -> None:
        self.run("pod", "rm", "--all", "--force", "--time", "0")
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self._folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def own_podman() -> Iterator[Podman]:
    """Skips the test, with the reason, where there is none."""
    if reason := why_not():
        pytest.skip(reason)
    made = Podman(Path(tempfile.mkdtemp(prefix="emppm-", dir="/var/tmp")))
    try:
        yield made
    finally:
        made.clear()
