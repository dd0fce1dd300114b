"""NUM_GPUS up and down in place: exact counts, and what stays is never restarted."""

from __future__ import annotations

import os
import signal
import socket

from support.stack.stack import MACHINE, Stack


async def _counts(stack: Stack) -> tuple[int, int, int]:
    workers = [w for w in (await stack.state())["workers"] if w["machine_id"] == MACHINE]
    return len(stack.running(" worker --machine")), len(stack.running("data/comfyui-gpu")), len(workers)


async def test_two_to_four_to_one(again: Stack) -> None:
    stack = again
    stack.up(NUM_GPUS="2")
    assert await _counts(stack) == (2, 2, 2)
    kept = {n: stack.program(n) for n in ("comfyui-gpu0", "redis-worker-gpu0", "simulation", "agent", "supervisord")}
    second = stack.program("comfyui-gpu1")

    stack.up(NUM_GPUS="4")
    assert await _counts(stack) == (4, 4, 4)
    assert {n: stack.program(n) for n in kept} == kept
    assert stack.program("comfyui-gpu1") == second
    assert stack.diff()[0] == 0

    stack.up(NUM_GPUS="1")
    assert await _counts(stack) == (1, 1, 1)
    assert {n: stack.program(n) for n in kept} == kept
    assert stack.diff()[0] == 0
    assert stack.redis_reports() == ([MACHINE], [f"{MACHINE}-worker-0"])


def test_a_removed_machine_stays_until_pruned(again: Stack) -> None:
    stack = again
    text = stack.file.read_text()
    second = text.replace(
        "  basic-machine-local:",
        "  spare:\n    runtime: process\n    num_gpus: 0\n    services: []\n  basic-machine-local:",
    )
    stack.file.write_text(second)
    stack.up(NUM_GPUS="1")
    spare = stack.program("supervisord", "spare")

    stack.file.write_text(text)
    stack.up(NUM_GPUS="1")
    code, found = stack.diff()
    assert code == 1
    assert [(d["drift"]["kind"], d["drift"]["subject"]) for d in found["drift"]] == [("machine-surplus", "spare")]
    assert stack.program("supervisord", "spare") == spare

    stack.ok("apply", "-y", "--prune", NUM_GPUS="1")
    assert stack.diff()[0] == 0
    assert not stack.layout.machine("spare").exists()

    stack.file.write_text(text[: text.index("machines:")] + "machines: {}\n" + text[text.index("reconcile:") :])
    refused = stack.run("apply", "-y", "--prune")
    assert refused.returncode == 2
    assert "--allow-empty" in refused.stderr
    assert stack.diff()[0] == 0


def test_scaling_onto_a_taken_port_is_refused_beforehand(again: Stack) -> None:
    stack = again
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", stack.ports["comfyui"] + 1))
        squatter.listen()
        refused = stack.run("apply", "-y", NUM_GPUS="2")
    assert refused.returncode == 1
    assert f"port {stack.ports['comfyui'] + 1} for {MACHINE}/comfyui-gpu1 is taken by" in refused.stderr
    assert stack.diff()[0] == 0
    stack.up(NUM_GPUS="2")


def test_a_killed_stack_is_taken_over_by_the_next_apply(again: Stack) -> None:
    """Both supervisords killed: what they left behind holds the ports, and the next apply ends it and starts anew."""
    stack = again
    for who in (stack.control("supervisord"), stack.program("supervisord")):
        os.kill(who.pid, signal.SIGKILL)
    left = stack.leftovers()
    assert left
    stack.up(NUM_GPUS="1")
    assert stack.diff()[0] == 0
    assert not set(left) & set(stack.leftovers())
    assert len(stack.running(" worker --machine")) == 1
