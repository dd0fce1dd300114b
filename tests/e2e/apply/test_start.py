"""`emp start`: what was in force comes up again and nothing is published; `emp stop` is its counterpart."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import redis
import yaml

from emp_orch.store.fleet.generations import Generation
from support.redis.server import running_server
from support.stack.stack import MACHINE, Stack


def _history(stack: Stack) -> list[tuple[int, str]]:
    return [(g["number"], g["why"]) for g in json.loads(stack.ok("history", "--json"))]


def _small(stack: Stack, **env: object) -> None:
    """One slot, which is enough here; `env` is the machine's."""
    config = yaml.safe_load(stack.file.read_text())
    config["machines"][MACHINE].update(num_gpus=1, **({"env": env} if env else {}))
    stack.file.write_text(yaml.safe_dump(config, sort_keys=False))


def test_what_was_in_force_comes_up_again(folder_stack: Stack) -> None:
    stack = folder_stack
    _small(stack, TOKEN={"env": "TOKEN"})
    stack.up(TOKEN="first")
    stack.ok("scale", MACHINE, "2", "-y", TOKEN="first")
    before = _history(stack)
    kept = {n: stack.program(n) for n in ("supervisord", "redis-worker-gpu1")}

    ran = stack.run("start", "--json")
    assert ran.returncode == 0, ran.stderr
    assert "test runs already" in ran.stderr
    said = json.loads(ran.stdout)
    assert (said["generation"], said["changed"], said["converged"]) == (2, False, True)
    assert {n: stack.program(n) for n in kept} == kept

    assert "emp start" in stack.ok("stop"), "who stops it is told how it comes back"
    assert not stack.leftovers()
    # Secrets that have no value any more keep their last, and emp.yaml need not even be there.
    stack.file.rename(stack.root / "aside.yaml")
    up = stack.run("start", "--timeout", "120", TOKEN="")
    assert up.returncode == 0, f"{up.stderr}{stack.log_ends()}"
    assert up.stdout.startswith("test is ready: generation 2, 1 machine, 2 GPU slots\n")
    (stack.root / "aside.yaml").rename(stack.file)
    assert _history(stack) == before, "nothing was published"
    environ = Path(f"/proc/{stack.program('redis-worker-gpu1').pid}/environ").read_bytes().split(b"\0")
    assert b"TOKEN=first" in environ
    assert stack.diff()[0] == 0

    stack.ok("down")
    quick = stack.run("start", "--no-wait", TOKEN="second")
    assert quick.returncode == 0, quick.stderr
    assert quick.stdout.startswith("test is starting: generation 2")
    assert f"~ {MACHINE}: num_gpus 2 → 1" in quick.stderr, "emp.yaml says otherwise, which is told"
    stack.until_in_sync()
    environ = Path(f"/proc/{stack.program('redis-worker-gpu1').pid}/environ").read_bytes().split(b"\0")
    assert b"TOKEN=second" in environ, "a new value is taken from where apply takes it"


def test_nothing_was_ever_applied(folder_stack: Stack) -> None:
    done = folder_stack.run("start")
    assert done.returncode == 2
    assert f"no fleet was applied in {folder_stack.root}" in done.stderr
    assert "emp apply" in done.stderr
    assert not folder_stack.layout.state.exists()


def test_redis_has_another_fleet_of_that_name(folder_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    stack = folder_stack
    _small(stack)
    with running_server("redis", tmp_path_factory.mktemp("redis")) as server:
        config = yaml.safe_load(stack.file.read_text())
        config["redis"] = {"url": server.url}
        stack.file.write_text(yaml.safe_dump(config, sort_keys=False))
        stack.ok("apply", "-y", "--no-wait")
        stack.ok("down")

        with redis.Redis.from_url(server.url, decode_responses=True) as r:
            kept = r.get("fleet:test:spec:1")
            stranger = msgspec.structs.replace(msgspec.json.decode(kept, type=Generation), at_ms=1)
            r.set("fleet:test:spec:1", msgspec.json.encode(stranger))
            refused = stack.run("start")
            assert refused.returncode == 1
            assert "generation 1 of a fleet test that is not this folder's, which was at 1" in refused.stderr
            assert not stack.leftovers(), "nothing was started"

            r.set("fleet:test:spec:1", kept)
        assert stack.ok("start", "--no-wait").startswith("test is starting: generation 1")
        stack.ok("down")
    gone = stack.run("start")
    assert gone.returncode == 3
    assert not stack.leftovers()
