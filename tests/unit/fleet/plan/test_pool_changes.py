"""What a generation changes in pools, in a line a pool."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.model.fleet import Fleet, PoolName, PoolScale
from emp_orch.fleet.plan.changes import changed
from emp_orch.fleet.plan.pool_changes import pool_changes
from support.fleet.fleets import SIMULATION
from support.fleet.members import pool, pooled

TEMPLATE = pool(services=[SIMULATION.name]).template


def of(**changes: Any) -> Fleet:
    return pooled(pool(services=[SIMULATION.name], **changes), services=[SIMULATION])


def test_a_pool_comes_and_goes() -> None:
    bare = pooled(services=[SIMULATION])
    assert pool_changes(None, of()) == ("+ pool renders: 0..40 boxes by join",)
    assert pool_changes(bare, of(min_size=3, max_size=3)) == ("+ pool renders: 3 boxes by join",)
    assert pool_changes(of(), bare) == ("- pool renders: its members go",)
    assert pool_changes(of(), of(origin="elsewhere")) == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_size": 4}, "size 0..40 → 0..4"),
        ({"provider": "slurm"}, "provider join → slurm"),
        ({"options": {"a": 1}}, "provider_options"),
        ({"cost": 2.0}, "how it is sized"),
        ({"scale": PoolScale(jobs_per_gpu=2.0, up_after_s=15.0, down_after_s=300.0)}, "how it is sized"),
        ({"template": structs.replace(TEMPLATE, num_gpus=2)}, "its members change in place"),
        ({"template": structs.replace(TEMPLATE, image="other")}, "new members get other boxes"),
    ],
)
def test_how_it_changes(changes: dict[str, Any], told: str) -> None:
    assert pool_changes(of(), of(**changes)) == (f"~ pool renders: {told}",)
    assert changed(of(), of(**changes)) == (f"~ pool renders: {told}",)


def test_another_engine_says_what_becomes_of_the_boxes() -> None:
    swarm = of(provider="swarm")
    assert pool_changes(swarm, of(provider="slurm")) == (
        "~ pool renders: provider swarm → slurm; its boxes drain and go",
    )
    assert pool_changes(swarm, of(provider="swarm", options={"host": "b"})) == (
        "~ pool renders: provider_options; boxes that it no longer finds drain and go",
    )


@pytest.mark.parametrize(
    ("boxes", "another", "elsewhere", "gone"),
    [
        (0, "its boxes drain and go", "boxes that it no longer finds drain and go", "its members go"),
        (1, "1 box of swarm drains and goes", "boxes that it no longer finds drain and go", "its 1 member goes"),
        (
            3,
            "3 boxes of swarm drain and go",
            "of 3 boxes those that it no longer finds drain and go",
            "its 3 members go",
        ),
    ],
)
def test_how_many_boxes_go_is_said_where_it_is_known(boxes: int, another: str, elsewhere: str, gone: str) -> None:
    swarm, known = of(provider="swarm"), {PoolName("renders"): boxes, PoolName("other"): 9}
    for after, told in (
        (of(provider="slurm"), f"~ pool renders: provider swarm → slurm; {another}"),
        (of(provider="swarm", options={"host": "b"}), f"~ pool renders: provider_options; {elsewhere}"),
        (pooled(services=[SIMULATION]), f"- pool renders: {gone}"),
    ):
        assert pool_changes(swarm, after, known) == (told,)
