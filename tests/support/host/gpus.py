"""A stand-in for NVIDIA's library, handed to what asks it: no test machine need have a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 1 << 20


class Nvml:
    """NVIDIA's library with two cards, by the names of its Python bindings."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_ERROR_DRIVER_NOT_LOADED = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    cards = (("GPU-aaaa", "NVIDIA GeForce RTX 4090", 24564), ("GPU-bbbb", "NVIDIA L4", 23034))

    def __init__(self, init: Exception | None = None, lost: Mapping[int, Exception] | None = None) -> None:
        """`init` is what opening it raises; `lost`, what asking a card by its index raises."""
        self._init = init
        self._lost = lost or {}
        self.open = 0

    def nvmlInit(self) -> None:
        if self._init:
            raise self._init
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        raise pynvml.NVMLError_NotFound

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.cards[handle][0]

    def nvmlDeviceGetName(self, handle: int) -> str:
        if handle in self._lost:
            raise self._lost[handle]
        return self.cards[handle][1]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=self.cards[handle][2] * MIB)
