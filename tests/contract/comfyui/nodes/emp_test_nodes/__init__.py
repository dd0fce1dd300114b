"""Nodes that misbehave, for the real ComfyUI: the same as emp's simulation has built in.

Give ComfyUI this folder's parent as a `custom_nodes` path, in a file named by --extra-model-paths-config.
"""

import ctypes
import os
import sys
import time

import comfy.model_management
import comfy.utils
import torch
from PIL import Image

SECONDS = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 3600.0, "step": 0.01})
_TICK_S = 0.02


def _sleep(seconds):
    """Sleep, and look for an interrupt as a sampler does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        comfy.model_management.throw_exception_if_processing_interrupted()
        time.sleep(min(left, _TICK_S))
    comfy.model_management.throw_exception_if_processing_interrupted()


class _TestNode:
    REQUIRED = {}
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": dict(cls.REQUIRED), "optional": {"images": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return time.time()

    def run(self, images=None, **given):
        self.act(**given)
        return (torch.zeros((1, 8, 8, 3)) if images is None else images,)

    def act(self, **given):
        raise NotImplementedError(given)


class TestSleep(_TestNode):
    REQUIRED = {"seconds": SECONDS, "interruptible": ("BOOLEAN", {"default": True})}

    def act(self, seconds, interruptible):
        comfy.utils.ProgressBar(1).update_absolute(0, 1)  # whoever waits for it to have begun hears it
        if interruptible:
            _sleep(seconds)
        else:
            time.sleep(seconds)


class TestProgress(_TestNode):
    REQUIRED = {
        "steps": ("INT", {"default": 4, "min": 1, "max": 1000}),
        "seconds": SECONDS,
        "preview": ("BOOLEAN", {"default": False}),
    }

    def act(self, steps, seconds, preview):
        bar = comfy.utils.ProgressBar(steps)
        for step in range(1, steps + 1):
            _sleep(seconds / steps)
            shown = ("PNG", Image.new("RGB", (16, 16), (255 * step // steps, 0, 0)), 512) if preview else None
            bar.update_absolute(step, steps, shown)


class TestRaise(_TestNode):
    REQUIRED = {"message": ("STRING", {"default": "raised on purpose"})}

    def act(self, message):
        raise RuntimeError(message)


class TestHold(_TestNode):
    REQUIRED = {"seconds": SECONDS}

    def act(self, seconds):
        # Called through PyDLL, C's usleep keeps the interpreter's lock: no thread of this process runs meanwhile.
        ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


class TestExit(_TestNode):
    REQUIRED = {"status": ("INT", {"default": 3, "min": 0, "max": 255})}

    def act(self, status):
        sys.stderr.write(f"TestExit: ends with status {status}\n")
        sys.stderr.flush()
        os._exit(status)


class TestOutOfMemory(_TestNode):
    def act(self):
        raise torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
            " of which 512.00 MiB is free."
        )


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls for cls in (TestSleep, TestProgress, TestRaise, TestHold, TestExit, TestOutOfMemory)
}
