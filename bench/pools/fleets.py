"""The two fleets: a pool, and the same machines by their names. A whole emp by `emp apply`, each in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.pools.plan import Plan
from bench.queue.server import free_port
from bench.reconcile.children import Failed, run_command
from emp_orch import manifest, procident
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.settings import Settings, load

POOL = "renders"
MACHINE = "m"
SERVICE = "simulation"
# The processes whose CPU is told.
PROGRAMS = ("api", "reconcile", "redis", "eventlog", "monitor")

_YAML = """\
version: 1
name: bench-pools
redis: {{port: {redis}, machine_url: "redis://127.0.0.1:{redis}"}}
api: {{port: {api}, machine_url: "http://127.0.0.1:{api}"}}
monitor: {{port: {monitor}}}
services:
  simulation: {{scale: per_gpu, builtin: simulation, port: {service}}}
machines: {machines}
{pools}jobs: {{lease: {lease}s, keep: {{count: 1000000}}}}
reconcile: {{interval: 1s, stale_after: {stale}s}}
"""
_POOLS = """\
pools:
  {pool}:
    provider: join
    size: 0..{most}
    services: [simulation]
    scale: {{down_after: 24h}}
    forget_after: {forget}s
"""


class UpFleet:
    """A fleet that was applied, in `folder`."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        self.api = api
        self.layout = Layout(folder)
        self.settings: Settings = load(self.layout)
        self._tokens = JoinTokens(self.layout)

    @property
    def pooled(self) -> bool:
        return not self.machines

    @property
    def machines(self) -> tuple[str, ...]:
        """Those that emp.yaml names."""
        text = (self.folder / "emp.yaml").read_text()
        return tuple(m.id for m in manifest.load_text(text, file="emp.yaml", environ={}).machines)

    def pids(self) -> dict[str, int]:
        """Raises Failed where a daemon does not run."""
        found = {name: procident.recorded(self.layout.control / "run" / name) for name in PROGRAMS}
        if gone := [name for name, who in found.items() if who is None]:
            raise Failed(f"{', '.join(gone)} of the fleet in {self.folder} do not run")
        return {name: who.pid for name, who in found.items() if who is not None}

    def pool_token(self) -> str:
        return self._tokens.pool_token(self.settings.fleet, POOL, expires_s=None)

    def machine_token(self, machine_id: str) -> str:
        return self._tokens.issue(self.settings.fleet, machine_id, expires_s=None)


def _text(plan: Plan, ports: dict[str, int], *, pooled: bool) -> str:
    most = plan.members * 3
    pools = _POOLS.format(pool=POOL, most=most, forget=plan.forget_after_s) if pooled else ""
    named = f"{{{MACHINE}: {{runtime: external, num_gpus: 1, replicas: {plan.members}, services: [{SERVICE}]}}}}"
    machines = "{}" if pooled else named
    return _YAML.format(pools=pools, machines=machines, lease=plan.lease_s, stale=plan.stale_after_s, **ports)


@contextmanager
def up(folder: Path, plan: Plan, *, pooled: bool) -> Iterator[UpFleet]:
    """Applied, and down again at the end. Raises Failed."""
    folder.mkdir()
    ports = {name: free_port() for name in ("redis", "api", "monitor", "service")}
    (folder / "emp.yaml").write_text(_text(plan, ports, pooled=pooled))
    emp = (sys.executable, "-m", "emp_orch", "-C", str(folder))
    try:
        run_command(*emp, "apply", "-y", *(() if pooled else ("--no-wait",)), cwd=folder)
        yield UpFleet(folder, f"http://127.0.0.1:{ports['api']}")
    finally:
        run_command(*emp, "down", cwd=folder)
