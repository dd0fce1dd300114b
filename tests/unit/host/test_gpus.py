"""What NVML tells of a host's GPUs, and what the agent makes of one look after another."""

from __future__ import annotations

import asyncio
import sys
import threading

import pynvml
import pytest

from emp_orch.host import gpus
from emp_orch.host.gpus import Broken, Gpu, Look, NoDriver
from emp_orch.machine.observe import gpus as machine_gpus
from emp_orch.machine.observe.gpus import GpuHistory, Gpus
from support.host.gpus import MIB, Nvml

A = Gpu(index=0, name="NVIDIA GeForce RTX 4090", memory_bytes=24564 * MIB, uuid="GPU-aaaa")
B = Gpu(index=1, name="NVIDIA L4", memory_bytes=23034 * MIB, uuid="GPU-bbbb")


def test_the_stand_in_has_only_names_of_the_bindings() -> None:
    assert [n for n in vars(Nvml) if n.startswith("nvml") and not callable(getattr(pynvml, n, None))] == []


def test_every_gpu_is_read() -> None:
    assert gpus.read_all(Nvml()) == Look(gpus=(A, B))


@pytest.mark.parametrize("error", [pynvml.NVMLError_GpuIsLost(), pynvml.NVMLError_ResetRequired()])
def test_a_gpu_that_does_not_answer_is_named_and_the_others_are_read(error: Exception) -> None:
    assert gpus.read_all(Nvml(lost={0: error})) == Look(gpus=(B,), error=f"GPU 0: {error}")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (pynvml.NVMLError_LibraryNotFound(), NoDriver),
        (pynvml.NVMLError_DriverNotLoaded(), NoDriver),
        (OSError("no such file"), NoDriver),
        (pynvml.NVMLError_LibRmVersionMismatch(), Broken),
        (pynvml.NVMLError_Unknown(), Broken),
    ],
)
def test_no_driver_is_told_apart_from_a_broken_one(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(error))
    with pytest.raises(raised) as caught:
        gpus.look()
    assert str(caught.value) == str(error)


def test_a_look_leaves_the_library_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(lost={1: pynvml.NVMLError_GpuIsLost()})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpus.look().gpus == (A,)
    assert nvml.open == 0


GONE = f"{B} is gone"


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        # without a driver, ever: nothing is claimed
        ([NoDriver("Driver Not Loaded")] * 2, Look()),
        ([Look()], Look()),
        ([Look(gpus=(A, B))], Look(gpus=(A, B))),
        ([Look(gpus=(A, B)), NoDriver("Driver Not Loaded")], Look(error="the driver is gone: Driver Not Loaded")),
        ([Broken("Unknown Error")], Look(error="NVML does not work: Unknown Error")),
        ([Look(gpus=(A, B)), Look(gpus=(A,))], Look(gpus=(A,), error=GONE)),
        ([Look(gpus=(A, B)), Look(gpus=(A,)), Look(gpus=(A,))], Look(gpus=(A,), error=GONE)),
        ([Look(gpus=(A, B)), Look(gpus=(A,), error="GPU 1: GPU is lost")], Look(gpus=(A,), error="GPU 1: GPU is lost")),
        # what came back is forgiven, whatever number it has now
        ([Look(gpus=(A, B)), Look(gpus=(A,)), Look(gpus=(A, B))], Look(gpus=(A, B))),
        ([Look(gpus=(A, B)), NoDriver("x"), Look(gpus=(A, B))], Look(gpus=(A, B))),
    ],
)
def test_looks_after_one_another(looks: list[Look | NoDriver | Broken], expected: Look) -> None:
    history = GpuHistory()
    told = [history.judge(look) for look in looks]
    assert told[-1] == expected


async def test_a_driver_that_hangs_is_told_and_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_gpus, "ANSWER_S", 0.01)
    answers, changed = threading.Event(), asyncio.Event()

    def look() -> Look:
        answers.wait()
        return Look(gpus=(A,))

    watched = Gpus(changed.set, look)
    task = asyncio.create_task(watched.run())
    try:
        await changed.wait()
        assert watched.error == "NVML has not answered for 0.01 s" and watched.reports == ()
        changed.clear()
        answers.set()
        await changed.wait()
        (told,) = watched.reports  # type: ignore[misc]
        assert (told.index, told.name, told.memory_mib, told.uuid) == (0, A.name, 24564, A.uuid)
        assert watched.error == ""
    finally:
        answers.set()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
