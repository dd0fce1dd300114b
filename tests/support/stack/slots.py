"""A fleet for trouble in one slot: services that can be told to fail, short limits, and what people see of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from emp_orch.procident import ProcessIdentity, alive, send
from support.stack.stack import Stack, until

# `steady` has time for long jobs, `hasty` gives each two seconds. `broken-N` keeps slot N's service from starting.
TEXT = """\
version: 1
name: slots
redis: {{url: embedded, port: {redis}}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
services:
  comfy: {{scale: per_gpu, command: [sh, -c, '{script}'], connector: comfyui, port: {comfyui}, health: {soon}}}
  quick: {{scale: per_gpu, command: [sh, -c, '{script}'], connector: comfyui, port: {simulation}, health: {patient}}}
  exporter:
    scale: per_machine
    command: [sh, -c, 'if [ -e typo ]; then nvidia_smi_exporter --por 9835; else exec sleep 3600; fi']
    connector: none
machines:
  steady: {{num_gpus: 2, services: [comfy, exporter], worker: {{drain_timeout: 1s, job_timeout: 60s}}}}
  hasty: {{num_gpus: 2, services: [quick], worker: {{drain_timeout: 1s, job_timeout: 2s}}}}
reconcile:
  interval: 300ms
  max_unavailable: 5
  stuck_after: 2s
  budget: {{program: 1, machine: 3}}
"""
SCRIPT = (
    "if [ -e broken-${{gpu}} ]; then echo no such checkpoint >&2; exit 3; fi;"
    " exec {python} -m emp_orch simulate --port ${{port}} --dir data-${{gpu}}"
)
# One tells soon of a service that holds still. The other leaves time to a service that starts on a busy machine:
# its restart is the one that the budget allows.
SOON = "{http: /system_stats, interval: 500ms, timeout: 500ms, failures: 2, startup: 30s}"
PATIENT = "{http: /system_stats, interval: 500ms, timeout: 3s, failures: 3, startup: 30s}"


class Slots:
    """The fleet, up."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder, name="slots")
        script = SCRIPT.format(python=sys.executable)
        ports = {**self.stack.ports, "simulation": self.stack.ports["comfyui"] + 4}
        self.port = {"comfy": ports["comfyui"], "quick": ports["simulation"]}
        self.stack.file.write_text(TEXT.format(script=script, soon=SOON, patient=PATIENT, **ports))
        self.stack.up()

    def break_(self, machine: str, file: str, program: str) -> None:
        """From its next start on `program` cannot start."""
        (self.stack.layout.machine(machine) / file).touch()
        send(self.stack.program(program, machine), signal.SIGKILL)

    def mend(self, machine: str, file: str) -> None:
        (self.stack.layout.machine(machine) / file).unlink()

    def submit(self, service: str, slot: int, node: str, *, retries: int = 0, **inputs: Any) -> str:
        """The id of a job of one node, for one slot."""
        gpu = {"positive": {"gpu": 1}} if slot else {"negative": {"gpu": 1}}
        workflow = {"1": {"class_type": node, "inputs": inputs}}
        args = ("--payload", json.dumps({"workflow": workflow}), "--requirements", json.dumps(gpu))
        done = self.stack.ok("submit", service, *args, "--retries", str(retries), "--json")
        return str(json.loads(done)["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stack.ok("jobs", "show", job_id, "--json"))
        return found

    def until_job(self, job_id: str, *statuses: str, within_s: float = 40.0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.job(job_id)
            return found if found["status"] in statuses else None

        found = until(f"job {statuses}", look, within_s=within_s, shown=lambda: json.dumps(self.job(job_id), indent=1))
        assert found is not None
        return found

    def drift(self, kind: str) -> dict[str, dict[str, Any]]:
        """What stands of one kind, by subject."""
        _, found = self.stack.diff()
        return {d["drift"]["subject"]: d for d in found["drift"] if d["drift"]["kind"] == kind}

    def until_drift(
        self, kind: str, subject: str, hold: str | None = None, *, within_s: float = 40.0
    ) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.drift(kind).get(subject)
            return found if found is not None and (hold is None or found["hold"] == hold) else None

        shown = lambda: json.dumps(self.stack.diff()[1]["drift"], indent=1)  # noqa: E731
        found = until(f"{kind} of {subject}", look, within_s=within_s, shown=shown)
        assert found is not None
        return found

    def journal(self, *kinds: str) -> list[dict[str, Any]]:
        text = self.stack.ok("journal", "--json", "-n", "5000")
        entries = json.loads(text)
        return [e for e in entries if not kinds or e["type"] in kinds]

    def begun(self, machine: str) -> list[str]:
        """Operations that were begun on a machine since the fleet is up."""
        return [
            e["data"]["operation"] for e in self.journal("operation_begun") if f"/{machine}" in e["data"]["operation"]
        ]

    def service(self, service: str, slot: int) -> ProcessIdentity:
        return self.stack.program(f"{service}-gpu{slot}", "steady" if service == "comfy" else "hasty")

    def ask(self, service: str, slot: int, path: str, body: object = None) -> Any:
        """One request to a slot's service, as a browser sends it."""
        url = f"http://127.0.0.1:{self.port[service] + slot}/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def text(self, *args: str) -> str:
        """What a command prints, whatever its exit code, on one line each."""
        done = subprocess.run(self.stack.argv(*args), capture_output=True, text=True, timeout=60)
        return done.stdout


def same(before: ProcessIdentity, after: ProcessIdentity) -> bool:
    return before == after and alive(before)
