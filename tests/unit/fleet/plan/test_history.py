"""What a generation changed against another, in words."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import structs

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.plan.changes import changed
from emp_orch.store.fleet.generations import Generation, decode, with_changes
from support.fleet.fleets import COMFYUI, SETUP, SIMULATION, fleet, machine

M = machine("m", services=["simulation", "comfyui"], num_gpus=1)
SPARE = machine("spare", num_gpus=0)
PINNED = WorkerPackage(digest="a" * 64)
OWN = WorkerPackage(digest="b" * 64)
ONE = fleet([SIMULATION, COMFYUI], M)


def _with(before: Fleet, **changes: object) -> Fleet:
    return structs.replace(before, **changes)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(None, fleet([SIMULATION, COMFYUI], M, SPARE), ("+ m", "+ spare"), id="the first"),
        pytest.param(ONE, ONE, (), id="the same"),
        pytest.param(
            ONE,
            fleet(
                [structs.replace(SIMULATION, origin="emp.yaml:9:9"), COMFYUI], structs.replace(M, origin="emp.yaml:7:7")
            ),
            (),
            id="moved within the file",
        ),
        pytest.param(ONE, fleet([SIMULATION, COMFYUI], M, SPARE), ("+ spare",), id="a machine more"),
        pytest.param(fleet([SIMULATION, COMFYUI], SPARE, M), ONE, ("- spare",), id="a machine less"),
        pytest.param(
            ONE, fleet([SIMULATION, COMFYUI], structs.replace(M, num_gpus=3)), ("~ m: num_gpus 1 → 3",), id="scaled"
        ),
        pytest.param(
            ONE,
            fleet([SIMULATION, COMFYUI], structs.replace(M, services=("comfyui",))),
            ("~ m: - simulation-installer and 1 more, ~ redis-worker-gpu0",),
            id="a service less",
        ),
        pytest.param(
            ONE,
            fleet([structs.replace(SIMULATION, port=9000), COMFYUI], M),
            ("~ m: ~ simulation and 1 more",),
            id="another port",
        ),
        pytest.param(
            ONE,
            fleet([SIMULATION, COMFYUI], structs.replace(M, labels={"a": "b"})),
            ("~ m: its settings change",),
            id="labels",
        ),
        pytest.param(ONE, fleet([SIMULATION, COMFYUI, SETUP], M), ("+ service prepare",), id="a service nobody runs"),
        pytest.param(
            ONE,
            _with(ONE, jobs=structs.replace(ONE.jobs, keep_count=5)),
            ("~ jobs",),
            id="jobs, as far as no worker is told",
        ),
        pytest.param(
            ONE,
            _with(ONE, jobs=structs.replace(ONE.jobs, lease_s=5.0)),
            ("~ m: ~ redis-worker-gpu0", "~ jobs"),
            id="jobs, as workers are told",
        ),
        pytest.param(
            ONE,
            _with(
                ONE,
                api=structs.replace(ONE.api, port=4000),
                reconcile=structs.replace(ONE.reconcile, prune=True),
                redis=structs.replace(ONE.redis, url="redis://elsewhere"),
            ),
            ("~ api", "~ reconcile"),
            id="parts; a URL is in no stored generation",
        ),
        pytest.param(ONE, _with(ONE, worker_package=PINNED), ("~ worker_package",), id="a pinned package"),
    ],
)
def test_what_changed(before: Fleet | None, after: Fleet, expected: tuple[str, ...]) -> None:
    assert changed(before, after) == expected


def test_a_generation_of_an_older_emp_is_read() -> None:
    made = Generation(number=3, at_ms=1, fleet=ONE, digest="d", by="ann", why="apply emp.yaml")
    document = msgspec.json.decode(msgspec.json.encode(made))
    assert decode(msgspec.json.encode(document), "here") == made
    del document["by"], document["why"]
    assert decode(msgspec.json.encode(document), "here") == structs.replace(made, by="", why="")


def test_only_neighbours_are_compared() -> None:
    two = fleet([SIMULATION, COMFYUI], structs.replace(M, num_gpus=2))
    kept = [Generation(number=n, at_ms=n, fleet=f, digest="") for n, f in ((9, two), (8, ONE), (6, two), (1, ONE))]
    assert [(g.number, told) for g, told in with_changes(kept)] == [
        (9, ("~ m: num_gpus 1 → 2",)),
        (8, ()),
        (6, ()),
        (1, ("+ m",)),
    ]


def test_another_worker_package_is_told_once() -> None:
    pinned = _with(ONE, worker_package=PINNED)
    runs = ((5, ONE, OWN), (4, pinned, PINNED), (3, ONE, PINNED), (2, ONE, OWN), (1, ONE, None))
    kept = [Generation(number=n, at_ms=n, fleet=f, digest="", package=p) for n, f, p in runs]
    assert [told for _, told in with_changes(kept)] == [
        ("~ worker_package",),  # with the version that goes with it
        ("~ worker_package",),  # pins what ran already
        ("~ worker package",),  # an emp of another version applied the same file
        ("~ worker package",),
        ("+ m",),
    ]


def test_a_generation_that_does_not_hold_together_is_damaged() -> None:
    lost = Generation(number=3, at_ms=1, fleet=fleet([COMFYUI], M), digest="d")
    with pytest.raises(EmpError, match="here is damaged: it has no service simulation"):
        decode(msgspec.json.encode(lost), "here")
