"""Nodes that misbehave, to try out what a fleet does then.

tests/contract/comfyui/nodes has the same for the real ComfyUI.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable

from emp_orch.services.simulation import png
from emp_orch.services.simulation.images import Image, Solid
from emp_orch.services.simulation.nodes.model import At, Given, Input, Made, NodeFailed, NodeType, always_anew

MODULE = "custom_nodes.emp_test_nodes"
_BLACK = (Image(width=8, height=8, source=Solid(color=0)),)
# The words of torch for a card of 8 GiB; ComfyUI adds its advice.
_OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
    " of which 512.00 MiB is free."
)
_ADVICE = (
    "\nThis error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
)


def _passed_on(given: Given) -> Made:
    return Made(values=(given.get("images") or _BLACK,))


async def _sleep(given: Given, at: At) -> Made:
    at.progress(0, 1)  # whoever waits for it to have begun hears it
    await at.sleep(given["seconds"], interruptible=given["interruptible"])
    return _passed_on(given)


async def _raise(given: Given, _: At) -> Made:
    raise NodeFailed(str(given["message"]))


async def _hold(given: Given, _: At) -> Made:
    time.sleep(given["seconds"])  # noqa: ASYNC251  # the point of it: nothing of this process answers meanwhile
    return _passed_on(given)


async def _exit(given: Given, _: At) -> Made:
    sys.stderr.write(f"TestExit: ends with status {given['status']}\n")
    sys.stderr.flush()
    os._exit(given["status"])


async def _out_of_memory(_: Given, __: At) -> Made:
    raise NodeFailed(_OUT_OF_MEMORY + _ADVICE, kind="torch.OutOfMemoryError")


async def _progress(given: Given, at: At) -> Made:
    steps = given["steps"]
    for step in range(1, steps + 1):
        await at.sleep(given["seconds"] / steps)
        solid = Image(width=16, height=16, source=Solid(color=(255 * step // steps) << 16))
        shown = png.encode(png.Picture(width=16, height=16, rgb=solid.rgb())) if given["preview"] else None
        at.progress(step, steps, shown)
        await asyncio.sleep(0)
    return _passed_on(given)


_SECONDS = Input(kind="FLOAT", options={"default": 1.0, "min": 0.0, "max": 3600.0, "step": 0.01})

_STEPS = Input(kind="INT", options={"default": 4, "min": 1, "max": 1000})
_BOOLEANS = {
    name: Input(kind="BOOLEAN", options={"default": name == "interruptible"}) for name in ("interruptible", "preview")
}


def _node(name: str, run: Callable[[Given, At], Awaitable[Made]], **inputs: Input) -> NodeType:
    return NodeType(
        inputs={**inputs, "images": Input(kind="IMAGE", optional=True)},
        returns=("IMAGE",),
        category="test",
        display=name,
        run=run,
        is_output=True,
        module=MODULE,
        changed=always_anew,
    )


def _text(default: str) -> Input:
    return Input(kind="STRING", options={"default": default})


NODES = {
    "TestSleep": _node("TestSleep", _sleep, seconds=_SECONDS, interruptible=_BOOLEANS["interruptible"]),
    "TestProgress": _node("TestProgress", _progress, steps=_STEPS, seconds=_SECONDS, preview=_BOOLEANS["preview"]),
    "TestRaise": _node("TestRaise", _raise, message=_text("raised on purpose")),
    "TestHold": _node("TestHold", _hold, seconds=_SECONDS),
    "TestExit": _node("TestExit", _exit, status=Input(kind="INT", options={"default": 3, "min": 0, "max": 255})),
    "TestOutOfMemory": _node("TestOutOfMemory", _out_of_memory),
    # What the `simulation` connector runs for a payload that asks to fail.
    "SimulatedError": _node("Simulated Error", _raise, message=_text("simulated failure")),
}
