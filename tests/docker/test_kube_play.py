"""The pod that `emp render --kubernetes` describes, run by podman as a node of a cluster would: it joins, works, hands
its job back when it is told to end, and a pod of the same name is the same member.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from support.docker.engine import Engine
from support.docker.podman import Podman, own_podman
from support.stack.stack import Stack, until

POOL = "renders"
POD = f"{POOL}-0"
BOX = f"{POD}-machine"
# Of the API, for whoever asks how large the pool should be.
READS = "a-token-that-reads"
LONG = json.dumps({"prompt": "a fox", "steps": 5000})


class PooledFleet(Stack):
    """A pool of 0..2 whose boxes somebody else starts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="kubed")
        ports = self.ports
        self.file.write_text(
            "\n".join(
                [
                    "version: 1",
                    "name: kubed",
                    f"redis: {{port: {ports['redis']}, url: embedded}}",
                    f"api: {{port: {ports['api']}, token: {{env: EMP_TOKEN}},",
                    "  tokens: {scaler: {role: read, token: {env: EMP_READS}}}}",
                    f"monitor: {{port: {ports['monitor']}}}",
                    "services:",
                    # The usual one caps the steps of a job.
                    "  simulation:",
                    "    command: [emp, simulate, --port, '${port}', --dir, pictures, --steps, '10000']",
                    "    scale: per_machine",
                    "    connector: simulation",
                    f"    port: {ports['simulation']}",
                    "pools:",
                    f"  {POOL}:",
                    "    size: 0..2",
                    "    num_gpus: 1",
                    "    services: [simulation]",
                    "    worker: {drain_timeout: 3s}",
                    "    scale: {jobs_per_gpu: 1, up_after: 0s}",
                    "",
                ]
            )
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"EMP_TOKEN": "a-token-of-ours", "EMP_READS": READS, **env})

    def pod(self, *, folders: Path | None = None) -> list[dict[str, Any]]:
        """Pod 0 as the controller of a StatefulSet makes it from its template. Its token lies in a folder of the host
        in place of the secret: podman 4.3 mounts what a secret holds without decoding it. `folders`: there its empty
        folders are, made as a node does for an fsGroup, which podman knows nothing of.
        """
        text = self.ok("render", "--kubernetes", POOL, "--api", self.api)
        (made,) = [d for d in yaml.safe_load_all(text) if d["kind"] == "StatefulSet"]
        template = made["spec"]["template"]
        (volume,) = [v for v in template["spec"]["volumes"] if "secret" in v]
        mode = volume.pop("secret")["defaultMode"]
        volume["hostPath"] = {"path": str(self._token(mode, template["spec"]["securityContext"]["fsGroup"]))}
        if folders is not None:
            _place(template["spec"], folders)
        metadata = {**template["metadata"], "name": f"{made['metadata']['name']}-0"}
        return [{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}]

    def _token(self, mode: int, group: int) -> Path:
        """As a node mounts the secret that the line in the file makes."""
        folder = self.root / "join"
        folder.mkdir(exist_ok=True)
        token = folder / "token"
        token.write_text(self.ok("pool", "join", POOL, "--expires", "90d", "--token"))
        os.chown(token, 0, group)
        token.chmod(mode)
        return folder

    def told(self) -> dict[str, Any]:
        """What an autoscaler hears."""
        headers = {"Authorization": f"Bearer {READS}"}
        said = requests.get(f"{self.api}/api/pools/{POOL}", headers=headers, timeout=10)
        assert said.status_code == 200, said.text
        data: dict[str, Any] = said.json()["data"]
        return data

    def at(self) -> dict[str, str]:
        """What each member is at."""
        return {m["id"]: m["at"] for m in self.told()["members"]}

    def job(self, job: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.ok("jobs", "show", job, "--json"))
        return said


def _place(spec: dict[str, Any], folders: Path) -> None:
    for empty in (v for v in spec["volumes"] if "emptyDir" in v):
        folder = folders / empty["name"]
        folder.mkdir(parents=True)
        os.chown(folder, 0, spec["securityContext"]["fsGroup"])
        folder.chmod(0o2777)
        del empty["emptyDir"]
        empty["hostPath"] = {"path": str(folder)}


@pytest.fixture
def podman(engine: Engine, machine_image: str, tmp_path: Path) -> Iterator[Podman]:
    """Has emp's machine image."""
    with own_podman() as made:
        tar = tmp_path / "machine.tar"
        engine.docker("save", "--output", str(tar), machine_image)
        made.ok("load", "--quiet", "--input", str(tar))
        tar.unlink()
        yield made


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[PooledFleet]:
    made = PooledFleet(tmp_path / "fleet")
    try:
        made.up()
        yield made
    finally:
        made.run("down")
        left = made.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def test_a_pod_joins_works_hands_its_job_back_and_is_itself_again(
    fleet: PooledFleet, podman: Podman, tmp_path: Path
) -> None:
    def shown() -> str:
        logs = podman.run("logs", BOX)
        return f"{fleet.told()}\n{podman.run('ps', '--all').stdout}{logs.stdout}{logs.stderr}{fleet.log_ends()}"

    pod = fleet.pod()
    assert fleet.at() == {}
    fleet.ok("submit", "simulation", "--id", "first", "--payload", "{}")
    until("KEDA's number counts the job that waits", lambda: fleet.told()["wanted"] == 1, shown=shown)
    podman.play(pod)
    until("the pod is a member", lambda: fleet.at() == {POD: "ready"}, shown=shown)
    until("the job ended", lambda: fleet.job("first")["status"] == "completed", shown=shown)
    assert fleet.job("first")["worker_id"].startswith(POD)
    (container,) = pod[0]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        podman.ok("exec", BOX, *container[probe]["exec"]["command"])
    (seen,) = json.loads(podman.ok("inspect", BOX))
    assert seen["HostConfig"]["ReadonlyRootfs"] is True
    assert seen["EffectiveCaps"] is None

    fleet.ok("submit", "simulation", "--id", "long", "--payload", LONG)
    until("it runs", lambda: fleet.job("long")["status"] == "in_progress", shown=shown)
    podman.down(pod)
    job = fleet.job("long")
    assert job["status"] == "pending", f"{job}{shown()}"
    said = fleet.ok("journal")
    assert [line for line in said.splitlines() if "preempted" in line and POD in line and "1 job went back" in line], (
        said
    )
    until("who left is forgotten", lambda: fleet.at() == {}, shown=shown)

    fleet.ok("cancel", "long")
    pod = fleet.pod(folders=tmp_path / "folders")
    podman.play(pod)
    until("a pod of that name is the same member", lambda: fleet.at() == {POD: "ready"}, shown=shown)
    done = fleet.run("submit", "simulation", "--id", "last", "--payload", "{}", "--wait")
    assert done.returncode == 0, done.stderr + shown()
    podman.down(pod)
