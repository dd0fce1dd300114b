"""NVIDIA's library with some cards, as the loader finds it: for programs that no test can reach into."""

from __future__ import annotations

import subprocess
from pathlib import Path

# The functions that nvidia-ml-py calls for what emp asks. Source: nvml.h.
_SOURCE = """
#include <stdio.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "an error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = CARDS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index >= CARDS) return 2;
    *handle = (void *)(unsigned long)(index + 1);
    return 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) { strncpy(name, "NVIDIA L4", length); return 0; }
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-%lu", (unsigned long)handle - 1);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory *found) { found->total = 24ull << 30; return 0; }
"""


def with_cards(folder: Path, cards: int) -> dict[str, str]:
    """The environment in which a driver shows so many cards, GPU-0, GPU-1, …"""
    folder.mkdir(exist_ok=True)
    source = folder / "nvml.c"
    source.write_text(_SOURCE)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", f"-DCARDS={cards}", "-o", library, source], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}
