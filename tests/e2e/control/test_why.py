"""Why it does not start, and why a job failed: said where people look, within seconds, in the program's own words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from support.stack.stack import Stack, until

FLEET = """\
version: 1
name: why
redis: {{port: {redis}, url: embedded}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
services:
  absent: {{scale: per_machine, command: [/nonexistent/x, --listen]}}
  nowhere: {{scale: per_machine, command: [sleep, "1000"], cwd: /nope}}
  three: {{scale: per_machine, command: [sh, -c, "echo loading >&2; echo no model in /models >&2; exit 3"]}}
machines:
  a: {{runtime: process, num_gpus: 0, services: [absent]}}
  b: {{runtime: process, num_gpus: 0, services: [nowhere]}}
  c: {{runtime: process, num_gpus: 0, services: [three]}}
"""
SAID = {
    "a": ("absent", "exited with status 127", "emp: cannot start absent: /nonexistent/x: not found"),
    "b": ("nowhere", "exited with status 127", "cannot start nowhere: its working directory /nope: No such file"),
    "c": ("three", "exited with status 3", "no model in /models"),
}
NO_REASON = "Exited too quickly"


def test_why_a_program_does_not_start_is_said_wherever_one_looks(folder_stack: Stack, tmp_path: Path) -> None:
    stack = folder_stack
    stack.file.write_text(FLEET.format(**stack.ports))
    out = tmp_path / "apply.txt"
    began = time.monotonic()
    with out.open("w") as file:
        apply = subprocess.Popen(
            stack.argv("apply", "-y", "--timeout", "300"), stdout=file, stderr=file, stdin=subprocess.DEVNULL
        )
    try:

        def told() -> bool:
            text = out.read_text()
            assert apply.poll() is None, text
            return all(f"{name} on {machine} {how}" in text for machine, (name, how, _) in SAID.items())

        until("apply says why", told, shown=lambda: out.read_text() + stack.log_ends())
        took = time.monotonic() - began
        assert apply.poll() is None, "it still waits, and has said why"
        text = out.read_text()
        for _, _, words in SAID.values():
            assert f"\n    | {words}" in text if words.startswith("emp") else words in text, text
        assert took < 40, f"after {took:.0f} s"

        # Once supervisord has given up, its programs are what differs.
        until("FATAL", lambda: len(stack.diff()[1]["plan"]) == 3, shown=stack.log_ends)
        status, diff, doctor = (stack.run(c).stdout for c in ("status", "diff", "doctor"))
        for machine, (name, how, words) in SAID.items():
            explain = stack.ok("explain", machine, name)
            for where, said in (("status", status), ("diff", diff), ("doctor", doctor), ("explain", explain)):
                assert how in said and words in said, f"{where} does not say why {name} ended:\n{said}"
                assert NO_REASON not in said and "process log may have details" not in said
        assert "| loading" in stack.ok("explain", "c", "three"), "all its last lines"
        found = json.loads(stack.run("diff", "--json").stdout)["drift"]
        assert any("no model in /models" in item["drift"]["cause"] for item in found)
    finally:
        os.kill(apply.pid, signal.SIGINT)
        apply.wait(30)
    assert "emp status shows how far" in out.read_text()


def node(kind: str, **inputs: object) -> str:
    return json.dumps({"workflow": {"1": {"class_type": kind, "inputs": inputs}}})


def submit(stack: Stack, name: str, kind: str, **inputs: object) -> str:
    file = stack.root / f"{name}.json"
    file.write_text(node(kind, **inputs))
    said = stack.ok("submit", "comfyui", "--payload", f"@{file}", "--id", name, "--retries", "5", "--json")
    job: str = json.loads(said)["id"]
    return job


def shown(stack: Stack, job: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(stack.ok("jobs", "show", job, "--json"))
    return found


def test_a_job_that_ends_its_service_says_so_and_takes_two_slots_at_most(folder_stack: Stack) -> None:
    stack = folder_stack
    stack.up(NUM_GPUS="3")
    long = submit(stack, "long", "TestSleep", seconds=120, interruptible=True)
    until("it runs", lambda: shown(stack, long)["status"] == "in_progress", shown=lambda: str(shown(stack, long)))
    slot = str(shown(stack, long)["worker_id"]).rpartition("-")[2]
    service = stack.program(f"comfyui-gpu{slot}")

    bad = submit(stack, "bad", "TestExit", status=3)
    until("it has ended", lambda: shown(stack, bad)["status"] == "failed", shown=lambda: stack.ok("jobs", "show", bad))
    found = shown(stack, bad)
    history = found["history"]
    assert isinstance(history, list)
    took = [h["worker_id"] for h in history if h["event"] == "job_assigned"]
    assert len(took) == 2 and len(set(took)) == 2 and shown(stack, long)["worker_id"] not in took
    words = "comfyui exited with status 3 during this job; last words: "
    assert any(h["event"] == "job_requeued" and h["reason"].startswith(words) for h in history), history
    first, second = took
    poison = f"poison: it ended comfyui on {first} (status 3) and on {second} (status 3); the last: {words}"
    assert history[-1]["reason"].startswith(poison)
    assert words in stack.ok("jobs", "show", bad)

    # The other slot's job ran on, in the same process.
    still = shown(stack, long)
    assert (still["status"], still["attempts"]) == ("in_progress", 1)
    assert stack.program(f"comfyui-gpu{slot}") == service
    stack.ok("cancel", long)
