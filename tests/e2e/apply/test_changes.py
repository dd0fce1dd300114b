"""Changes of emp.yaml under a running fleet that are easy to get wrong."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import urllib.request
from pathlib import Path

import aiohttp
import yaml

from emp_orch.procident import alive
from support.stack.stack import MACHINE, Stack, until


def _edit(stack: Stack, **changes: object) -> None:
    """Set top-level keys, and for a machine key `machine`: keys of the default machine."""
    config = yaml.safe_load(stack.file.read_text())
    config["machines"][MACHINE].update(changes.pop("machine", {}))
    config.update(changes)
    stack.file.write_text(yaml.safe_dump(config, sort_keys=False))


def _environ(stack: Stack, program: str) -> dict[str, str]:
    text = Path(f"/proc/{stack.program(program).pid}/environ").read_text()
    return dict(e.split("=", 1) for e in text.split("\0") if "=" in e)


def test_a_secret_reaches_a_machine_that_runs_and_nothing_else(again: Stack) -> None:
    up = again
    _edit(up, machine={"env": {"TOKEN": {"env": "SECRET_OF_TEST"}, "NASTY": "a b%c;d'\"#\n é"}})
    up.up(NUM_GPUS="1", SECRET_OF_TEST="hunter2")
    assert _environ(up, "comfyui-gpu0")["TOKEN"] == "hunter2"
    assert _environ(up, "comfyui-gpu0")["NASTY"] == "a b%c;d'\"#\n é"
    said = up.run("apply", "-y", NUM_GPUS="1", SECRET_OF_TEST="hunter3")
    assert said.returncode == 0
    assert "env:SECRET_OF_TEST" in said.stderr
    up.ok("restart", MACHINE, "comfyui-gpu0")
    assert _environ(up, "comfyui-gpu0")["TOKEN"] == "hunter3"

    told = said.stderr + up.ok("diff", "--json") + up.ok("render") + up.ok("status", "--json")
    written = b"".join(p.read_bytes() for p in up.root.rglob("*") if p.is_file() and p.name not in ("secrets.json",))
    for secret in ("hunter2", "hunter3"):
        assert secret not in told
        assert secret.encode() not in written
    for path in up.layout.state.rglob("secrets.json"):
        assert path.stat().st_mode & 0o077 == 0


def _draw(stack: Stack) -> str:
    """Have a picture drawn; its URL path, after it was served whole."""
    shown = stack.ok("submit", "simulation", "--payload", '{"steps": 1}', "--wait", "--json", "--timeout", "60")
    job = json.loads(shown)
    (output,) = job["result"]["outputs"]
    url = f"/api/jobs/{job['id']}/artifacts/{output['name']}"
    with urllib.request.urlopen(stack.api + url, timeout=10) as answer:
        assert hashlib.sha256(answer.read()).hexdigest() == output["sha256"]
    return url


def test_another_artifact_store_and_lease_reach_workers_that_run(again: Stack) -> None:
    up = again
    _draw(up)
    before = len(list(up.layout.artifacts.iterdir()))
    elsewhere = up.root / "else where"
    _edit(up, jobs={"artifacts": f"file://{elsewhere}", "lease": "7s"})
    agent = up.program("agent")
    up.up(NUM_GPUS="1")
    _draw(up)
    assert len(list(elsewhere.iterdir())) == 1 and len(list(up.layout.artifacts.iterdir())) == before
    assert alive(agent), "only workers and the control plane take part"
    worker = Path(f"/proc/{up.program('redis-worker-gpu0').pid}/cmdline").read_bytes().split(b"\0")
    assert worker[worker.index(b"--lease-ttl") + 1] == b"7"
    _edit(up, jobs={})
    up.up(NUM_GPUS="1")
    _draw(up)
    assert len(list(elsewhere.iterdir())) == 1 and len(list(up.layout.artifacts.iterdir())) == before + 1
    elsewhere.joinpath("file").touch()
    _edit(up, jobs={"artifacts": f"file://{elsewhere}/file"})
    refused = up.run("apply", "-y", NUM_GPUS="1")
    assert refused.returncode == 1 and "the artifact store does not work" in refused.stderr
    _edit(up, jobs={"artifacts": "nope://x/y"})
    refused = up.run("apply", "-y")
    assert refused.returncode == 2 and "Protocol not known" in refused.stderr


def test_an_agent_killed_while_it_reloads(again: Stack) -> None:
    """A removed program that ignores TERM holds the reload; the agent dies in it; the next one makes it good."""
    up = again
    before = up.diff()[1]["generation"]
    _edit(up, services={**yaml.safe_load(up.file.read_text())["services"], "stub": STUBBORN})
    _edit(up, machine={"services": ["simulation", "comfyui", "stub"]})
    up.up(NUM_GPUS="1")
    stubborn = up.program("stub")
    _edit(up, machine={"services": ["simulation", "comfyui"]})
    assert up.run("apply", "-y", "--no-wait", NUM_GPUS="1").returncode == 0
    log = up.layout.log(f"machine-{MACHINE}")
    until("the stop has begun", lambda: "waiting for stub to stop" in log.read_text())
    os.kill(up.program("agent").pid, signal.SIGKILL)
    up.until_in_sync()
    assert not alive(stubborn)
    assert up.diff()[1]["generation"] == before + 2


STUBBORN = {
    "scale": "per_machine",
    "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
    "stop": {"timeout": "6s"},
}


def test_another_fleet_in_the_same_folder_after_down(folder_stack: Stack) -> None:
    up = folder_stack
    up.up(NUM_GPUS="1")
    up.ok("down")
    _edit(up, name="another")
    up.up(NUM_GPUS="1")
    assert up.ok("diff").strip() == "in sync: another is as generation 1 says"


def test_the_api_moves_only_to_a_free_port(again: Stack) -> None:
    up = again
    before = up.control("api")
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        _edit(up, api={"host": "127.0.0.1", "port": squatter.getsockname()[1]})
        refused = up.run("apply", "-y", NUM_GPUS="1")
        assert refused.returncode == 1
        assert f"api.port: port {squatter.getsockname()[1]} for the API is taken by" in refused.stderr
        assert up.control("api") == before
        port = squatter.getsockname()[1]
    _edit(up, api={"host": "127.0.0.1", "port": port})
    agent = up.program("agent")
    up.up(NUM_GPUS="1")
    assert up.control("api") != before
    assert up.program("agent") == agent


def test_a_renamed_machine_is_told_whose_ports_it_wants(again: Stack) -> None:
    up = again
    config = yaml.safe_load(up.file.read_text())
    config["machines"] = {"renamed": config["machines"][MACHINE]}
    up.file.write_text(yaml.safe_dump(config))
    refused = up.run("apply", "-y", NUM_GPUS="1")
    assert refused.returncode == 1
    assert f"is taken by machine {MACHINE} of this fleet" in refused.stderr
    assert "--prune" in refused.stderr


def test_a_renamed_machine_replaces_the_old_one_when_pruning(again: Stack) -> None:
    up = again
    config = yaml.safe_load(up.file.read_text())
    config["machines"] = {"renamed": config["machines"][MACHINE]}
    up.file.write_text(yaml.safe_dump(config))
    up.ok("apply", "-y", "--prune", NUM_GPUS="1")
    assert up.diff()[0] == 0
    assert not up.layout.machine(MACHINE).exists()


def test_apply_waits_for_a_health_check_that_changed(again: Stack) -> None:
    """The program runs on untouched; what the old check said is no answer to the new one."""
    up = again
    before = up.program("comfyui-gpu0")
    up.ok("pause", MACHINE, "comfyui-gpu0")  # on a busy machine this takes longer than the check's patience
    config = yaml.safe_load(up.file.read_text())
    config["services"]["comfyui"]["health"]["http"] = "/nowhere"
    up.file.write_text(yaml.safe_dump(config))
    waited = up.run("apply", "-y", "--timeout", "6", NUM_GPUS="1")
    assert waited.returncode == 4, waited.stdout + waited.stderr
    assert "/nowhere answered 404" in waited.stderr
    assert up.program("comfyui-gpu0") == before
    config["services"]["comfyui"]["health"]["http"] = "/system_stats"
    up.file.write_text(yaml.safe_dump(config))
    up.up(NUM_GPUS="1")
    assert up.program("comfyui-gpu0") == before
    up.ok("resume", MACHINE, "comfyui-gpu0")


def test_a_wait_in_vain_says_when_nobody_is_at_work(again: Stack) -> None:
    up = again
    os.kill(up.control("reconcile").pid, signal.SIGSTOP)
    try:
        waited = up.run("apply", "-y", "--timeout", "12", NUM_GPUS="2")
        assert waited.returncode == 4
        assert "no reconciler is at work" in waited.stderr
    finally:
        os.kill(up.control("reconcile").pid, signal.SIGCONT)
    up.until_in_sync()


async def test_an_api_with_a_token(folder_stack: Stack) -> None:
    """The wait for the API carries the token; who has none is refused."""
    stack = folder_stack
    api = {"host": "127.0.0.1", "port": stack.ports["api"], "token": {"env": "API_TOKEN"}}
    _edit(stack, api=api)
    stack.up(NUM_GPUS="1", API_TOKEN="hunter2")
    async with aiohttp.ClientSession() as session:
        url = f"{stack.api}/api/monitor/state"
        async with session.get(url) as refused:
            assert refused.status == 401
        async with session.get(url, headers={"Authorization": "Bearer hunter2"}) as answer:
            assert answer.status == 200
    assert stack.run("doctor").returncode == 0
    assert stack.diff()[0] == 0
