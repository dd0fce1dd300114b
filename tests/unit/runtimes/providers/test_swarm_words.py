"""What a Swarm says of services, tasks and nodes → boxes; and what a service is called and made of."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.model.fleet import GpuKind, Limits, MachineId, PoolName, Volume
from emp_orch.fleet.model.pools import MAX_WORDS, Box, BoxState
from emp_orch.images import MACHINE_IMAGE
from emp_orch.options.provider_swarm import Options, options_of
from emp_orch.runtimes.providers.base import ProviderError
from emp_orch.runtimes.providers.swarm.look import boxes_of, nodes_of, services_of, tasks_of
from emp_orch.runtimes.providers.swarm.provider import concerns
from emp_orch.runtimes.providers.swarm.service import (
    FLEET,
    FOLDER,
    LONGEST_NAME,
    MEMBER,
    POOL,
    image_of,
    service_name,
    task_template,
)
from support.provider_contract import launch

LABELS = {FLEET: "f", FOLDER: "0a1b2c3d", POOL: "renders", MEMBER: "renders-7f3k"}
ONE = launch(image="i:1")("f", PoolName("renders"), MachineId("renders-7f3k"))
NODES = [
    {"ID": "n1", "Description": {"Hostname": "gpu-1"}, "Status": {"State": "ready"}},
    {"ID": "n2", "Description": {"Hostname": "gpu-2"}, "Status": {"State": "down"}},
]


def task(state: str, *, wanted: str = "running", node: str = "", at: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "ServiceID": "s",
        "NodeID": node,
        "CreatedAt": f"2026-11-30T22:00:{at:02}.5Z",
        "DesiredState": wanted,
        "Status": {"State": state, "PortStatus": {}, **status},
        "Spec": {"ContainerSpec": {"Labels": LABELS}},
        "Slot": 1,
    }


def seen(*tasks: dict[str, Any], removed: bool = False) -> list[Box]:
    services = [] if removed else [{"ID": "s", "Spec": {"Name": "emp-f-renders-7f3k-00000000", "Labels": LABELS}}]
    return list(boxes_of(services_of(services), tasks_of(list(tasks)), nodes_of(NODES)))


LACKS = "no suitable node (insufficient resources on 2 nodes)"


@pytest.mark.parametrize(
    ("tasks", "state", "words", "node"),
    [
        ([], BoxState.PENDING, "no task yet", ""),
        ([task("pending", Err=LACKS, Message="pending task scheduling")], BoxState.PENDING, LACKS, ""),
        ([task("preparing", node="n1", Message="preparing")], BoxState.PENDING, "preparing", "gpu-1"),
        ([task("running", node="n1", Message="started")], BoxState.RUNNING, "", "gpu-1"),
        ([task("running", node="n9")], BoxState.RUNNING, "", "n9"),
        (
            [task("ready", wanted="ready", at=2), task("failed", wanted="shutdown", Err="task: non-zero exit (1)")],
            BoxState.PENDING,
            "ready; the one before: task: non-zero exit (1)",
            "",
        ),
        (
            [task("running", wanted="shutdown", node="n2"), task("running", node="n1", at=2)],
            BoxState.RUNNING,
            "",
            "gpu-1",
        ),
        ([task("rejected", wanted="shutdown", Err="No such image: x")], BoxState.PENDING, "No such image: x", ""),
    ],
)
def test_a_box_is_its_present_task(tasks: list[dict[str, Any]], state: BoxState, words: str, node: str) -> None:
    (box,) = seen(*tasks)
    assert (box.member_id, box.state, box.words, box.node) == ("renders-7f3k", state, words, node)
    assert box.ref == "emp-f-renders-7f3k-00000000"


def test_what_is_left_of_a_removed_service_is_no_box() -> None:
    assert seen(task("running", wanted="remove", node="n1"), removed=True) == []


def test_words_are_one_line_and_bounded() -> None:
    (box,) = seen(task("pending", Err="a\nb\x1b[31m" + "x" * 1000))
    assert box.words.isprintable() and len(box.words) == MAX_WORDS


@pytest.mark.parametrize("answer", [None, {}, [3], [{"ID": 3, "Spec": {}}], [{"ID": "s", "Spec": {"Labels": [1]}}]])
def test_an_answer_that_is_none_is_told(answer: Any) -> None:
    with pytest.raises(ProviderError, match="the Swarm's list of services cannot be read: "):
        services_of(answer)


def test_names_are_short_and_their_own() -> None:
    assert service_name(LABELS).startswith("emp-f-renders-7f3k-")
    long = LABELS | {FLEET: "a_fleet.with" * 5, MEMBER: "p" * 40 + "-7f3k"}
    others = [LABELS | {FOLDER: "other"}, LABELS | {FLEET: "g"}, LABELS | {POOL: "other"}, long, LABELS]
    assert len({service_name(one) for one in others}) == len(others)
    assert len(service_name(long)) <= LONGEST_NAME and "_" not in service_name(long)


def template(options: Options | None = None, **changes: Any) -> Any:
    asked = structs.replace(ONE, **changes)
    return task_template(asked, options or Options(), labels=LABELS, secret=("id", "name"), image="i:1@sha256:0")


def test_a_service_holds_no_token() -> None:
    assert ONE.token not in repr(template())
    spec = template()["ContainerSpec"]
    assert "EMP_JOIN_TOKEN_FILE=/run/secrets/emp-join-token" in spec["Env"]
    assert spec["Image"] == "i:1@sha256:0" and spec["StopGracePeriod"] == 2 * 10**9


@pytest.mark.parametrize(
    ("option", "changes", "reserved"),
    [
        (None, {"num_gpus": 2, "gpus": GpuKind.NVIDIA}, {"Kind": "gpu", "Value": 2}),
        ("NVIDIA-GPU", {"num_gpus": 1}, {"Kind": "NVIDIA-GPU", "Value": 1}),
        ("none", {"num_gpus": 1, "gpus": GpuKind.NVIDIA}, None),
        (None, {"num_gpus": 1}, None),
        ("gpu", {"num_gpus": 0}, None),
    ],
)
def test_gpus_are_reserved(option: str | None, changes: dict[str, Any], reserved: Any) -> None:
    found = template(Options(gpu_resource=option), **changes)["Resources"].get("Reservations", {})
    assert found.get("GenericResources") == (None if reserved is None else [{"DiscreteResourceSpec": reserved}])


def test_limits_and_mounts() -> None:
    limits = Limits(memory_bytes=10, cpus=0.5, shm_bytes=20, pids=99)
    given = options_of({"mounts": [{"source": "models", "target": "/m", "read_only": True}]})
    found = template(given, limits=limits, volumes=(Volume(source="/a", target="/b", read_only=False),))
    assert found["Resources"]["Limits"] == {"NanoCPUs": 5 * 10**8, "MemoryBytes": 10, "Pids": 99}
    mounts = {m["Target"]: (m["Type"], m["Source"], m["ReadOnly"]) for m in found["ContainerSpec"]["Mounts"]}
    assert mounts == {
        "/tmp": ("volume", None, False),
        "/dev/shm": ("tmpfs", None, False),
        "/b": ("bind", "/a", False),
        "/m": ("volume", "models", True),
    }


def test_the_image_is_the_first_that_is_named() -> None:
    assert image_of(ONE, Options(image="mine:2")) == "mine:2"
    assert image_of(ONE, Options()) == "i:1"
    assert image_of(structs.replace(ONE, image=""), Options()) == MACHINE_IMAGE


@pytest.mark.parametrize(
    ("event", "ours"),
    [
        ({"Type": "node", "Action": "update", "Actor": {"Attributes": {"state.new": "down"}}}, True),
        ({"Type": "service", "Action": "create", "Actor": {"Attributes": {"name": "emp-f-renders-1-x"}}}, True),
        ({"Type": "service", "Action": "create", "Actor": {"Attributes": {"name": "web"}}}, False),
        ({"Type": "container", "Action": "die", "Actor": {"Attributes": LABELS}}, True),
        ({"Type": "container", "Action": "exec_start: x", "Actor": {"Attributes": LABELS}}, False),
        ({"Type": "container", "Action": "die", "Actor": {"Attributes": {}}}, False),
        ({"Type": "network", "Action": "create", "Actor": {"Attributes": {}}}, False),
        ({"Type": "node", "Actor": None}, False),
        ({}, False),
    ],
)
def test_which_events_concern_a_pool(event: dict[str, Any], ours: bool) -> None:
    assert concerns(event, {k: v for k, v in LABELS.items() if k != MEMBER}) is ours
