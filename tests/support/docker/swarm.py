"""A Docker Swarm of two engines, each a host elsewhere: a manager, and a worker that can be killed. No registry, and no
name server that would have to be waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from emp_orch.settings import EngineAddress
from support.docker.engine import BASE, load_base, why_not
from support.docker.far import FarEngine
from support.host.debian import run

SWARM_PORT = 2377
BOX = "emp-test-box:1"
# Shows that it can read its token, and takes DRAIN seconds to end in good order.
_BOX = (
    'test -r "$EMP_JOIN_TOKEN_FILE" && echo reads; trap "sleep ${DRAIN:-0}; exit 0" TERM; while :; do sleep 0.1; done'
)


class SwarmNode(FarEngine):
    """An engine with one GPU, as far as Swarm knows, and a host's name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"node-generic-resources": [f"gpu=GPU-{self.name}"]}

    @property
    def host(self) -> EngineAddress:
        pem = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
        files = {kind: str(self.certs / file) for kind, file in pem.items()}
        return EngineAddress(name=self.name, url=self.url, here=False, **files)

    def _make_network(self) -> None:
        super()._make_network()
        # From one node to the other through this host, which need not be a router otherwise.
        Path(f"/proc/sys/net/ipv4/conf/{self._end}/forwarding").write_text("1")
        for protocol in ("udp", "tcp"):
            refuse = ["-p", protocol, "--dport", "53", "-j", "REJECT"]
            run(*self.inside, "iptables", "--wait", "-I", "OUTPUT", *refuse)
        # Two of one name could not be told apart.
        named = ("unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh")
        self.inside = (*self.inside, *named)

    def way_to(self, other: SwarmNode) -> tuple[str, ...]:
        """The rule of this host's firewall by which packets come from here to there."""
        return ("FORWARD", "-i", self._end, "-o", other._end, "-j", "ACCEPT")

    def __exit__(self, *_: object) -> None:
        """Nothing of it is to be kept, and a dockerd that was of a Swarm takes half a minute to end by itself."""
        try:
            with suppress(AssertionError, subprocess.TimeoutExpired):
                if ids := self.docker("ps", "-aq").split():
                    self.docker("rm", "-f", "-v", *ids)
            self.kill()
        finally:
            self._clean()

    def die(self) -> None:
        """As if the power went: its engine, and all that runs in its containers."""
        ids = self.docker("ps", "-q").split()
        pids = self.docker("inspect", "--format", "{{.State.Pid}}", *ids).split() if ids else []
        self.kill()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def swarm() -> Iterator[tuple[SwarmNode, SwarmNode]]:
    """A manager and a worker, both with the images BASE and BOX; skips the test, with the reason, where none can be."""
    if reason := why_not():
        pytest.skip(reason)
    with SwarmNode() as manager, SwarmNode() as worker:
        rules = (manager.way_to(worker), worker.way_to(manager))
        for rule in rules:
            run("iptables", "--wait", "-I", *rule)
        try:
            for node in (manager, worker):
                load_base(node)
                _make_box(node)
            heard = ["--dispatcher-heartbeat", "2s"]  # so that a node that is gone is missed in seconds
            manager.docker("swarm", "init", *_addresses(manager), *heard)
            token = manager.docker("swarm", "join-token", "-q", "worker").strip()
            there = f"{manager.address}:{SWARM_PORT}"
            worker.docker("swarm", "join", "--token", token, *_addresses(worker), there)
            yield manager, worker
            for node in (worker, manager):
                node.docker("swarm", "leave", "--force")
        finally:
            for rule in rules:
                run("iptables", "--wait", "-D", *rule)


def _addresses(node: SwarmNode) -> tuple[str, ...]:
    return ("--advertise-addr", node.address, "--listen-addr", f"{node.address}:{SWARM_PORT}")


def _make_box(node: SwarmNode) -> None:
    made = node.docker("create", BASE, "true").strip()
    node.docker("commit", "--change", f'ENTRYPOINT ["sh", "-c", {json.dumps(_BOX)}]', "--change", "CMD []", made, BOX)
    node.docker("rm", made)
