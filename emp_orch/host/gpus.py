"""NVIDIA's GPUs of this host, through NVML. Source: the NVML API reference, nvml.h and nvidia-ml-py.

Each look opens the library anew and closes it, so that a card can be reset and a driver replaced meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msgspec import Struct

MIB = 1 << 20
# A driver that has to be loaded first takes a few seconds.
LOOK_S = 5.0


class NoDriver(Exception):
    """There is nothing to ask: no bindings, no library or no driver."""


class Broken(Exception):
    """There is a driver, and it does not work; the text says how, in one line."""


class Gpu(Struct, frozen=True, kw_only=True):
    """`index` is NVML's: PCI bus order."""

    index: int
    name: str
    memory_bytes: int
    uuid: str

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name}, {self.uuid})"


class Look(Struct, frozen=True, kw_only=True):
    """`error` names every GPU that cannot be used and why; empty when all is well."""

    gpus: tuple[Gpu, ...] = ()
    error: str = ""


@contextmanager
def opened() -> Iterator[Any]:
    """NVML's functions and errors, as the module `pynvml`. Raises NoDriver or Broken."""
    try:
        import pynvml
    except ImportError as e:
        raise NoDriver("the bindings of NVML are not installed") from e
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as e:
        absent = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        raise (NoDriver if e.value in absent else Broken)(str(e)) from e
    except OSError as e:
        raise NoDriver(str(e)) from e
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def read(nvml: Any, handle: Any, index: int = 0) -> Gpu:
    """One GPU. Raises NVMLError: a card that is lost or must be reset refuses one of these questions."""
    return Gpu(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
    )


def read_all(nvml: Any) -> Look:
    """Every GPU that answers; those that do not are named in `error`."""
    found, wrong = [], []
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as e:
        return Look(error=f"GPUs cannot be counted: {e}")
    for index in range(count):
        try:
            found.append(read(nvml, nvml.nvmlDeviceGetHandleByIndex(index), index))
        except (nvml.NVMLError, UnicodeDecodeError) as e:
            wrong.append(f"GPU {index}: {e}")
    return Look(gpus=tuple(found), error="; ".join(wrong))


def look() -> Look:
    """The GPUs of this host now. Blocks, as a driver in trouble may for long. Raises NoDriver or Broken."""
    with opened() as nvml:
        return read_all(nvml)


def look_within(seconds: float = LOOK_S) -> Look:
    """As `look`, for who cannot wait for a driver in trouble. Raises Broken too when there is no answer in time."""
    answer: list[Look | Exception] = []

    def ask() -> None:
        try:
            answer.append(look())
        except Exception as e:  # noqa: BLE001  # whatever the bindings raise is told to who asked
            answer.append(e if isinstance(e, NoDriver | Broken) else Broken(f"{type(e).__name__}: {e}"))

    asking = threading.Thread(target=ask, name="nvml", daemon=True)
    asking.start()
    asking.join(seconds)
    if not answer:
        raise Broken(f"it has not answered for {seconds:g} s")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def uuids() -> tuple[str, ...] | None:
    """The UUIDs of the GPUs that the driver shows, by index; None when there is none that could tell of all."""
    try:
        found = look_within()
    except (NoDriver, Broken):
        return None
    return None if found.error else tuple(gpu.uuid for gpu in found.gpus)
