"""Which image a container is made from is part of what is desired, by its id: told, planned, kept, rolled back."""

from __future__ import annotations

import pytest
from msgspec import structs

from emp_orch.control.host.generation import digest
from emp_orch.fleet.desired.containers import container_hash, images_moved
from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import Kind, diff
from emp_orch.fleet.model.fleet import Fleet, ImageThere
from emp_orch.fleet.model.observed import ContainerState, Instance, InstanceState, Observed
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.plan import operations
from emp_orch.fleet.plan.changes import changed
from emp_orch.images import built_here, kept_name
from emp_orch.runtimes.compose.folder import same_container
from emp_orch.runtimes.compose.images import Pulling, digest_of
from support.docker.compose import container, placed, services_of
from support.fleet.fleets import OLD_MS, fleet, look, machine, wish

NAME = "registry.example.com:5000/farm:1.4"
OLD_ID, NEW_ID = "sha256:" + "a1" * 32, "sha256:" + "b2" * 32
BOX = machine("m", runtime=RuntimeKind.COMPOSE, image=NAME)


def made(*images: ImageThere) -> Fleet:
    return structs.replace(fleet([], BOX), images=images)


def there(image_id: str, host: str = "local", image: str = NAME) -> ImageThere:
    return ImageThere(host=host, image=image, id=image_id, digest="registry.example.com:5000/farm@sha256:00")


def desired(*images: ImageThere) -> DesiredMachine:
    return desired_machine(made(*images), BOX)


OLD, NEW, UNKNOWN = desired(there(OLD_ID)), desired(there(NEW_ID)), desired(there(NEW_ID, host="gpu-a"))


def sees(m: DesiredMachine, *, made_of: str = OLD_ID, now: str = OLD_ID) -> Observed:
    engine = ContainerState(name="c0ffee", word="running", image_now=now)
    one = Instance(
        machine_id=m.id,
        state=InstanceState.RUNNING,
        started_ms=OLD_MS,
        container=container_hash(m),
        image=made_of,
        engine=engine,
    )
    return look(m, instances={m.id: one}, answered=(RuntimeKind.COMPOSE,))


@pytest.mark.parametrize(
    ("image", "digests", "found"),
    [
        (NAME, ["mirror:5000/farm@sha256:1", "registry.example.com:5000/farm@sha256:2"], 1),
        ("docker.io/library/redis:7", ["redis@sha256:1"], 0),
        ("host/farm@sha256:1", ["host/farm@sha256:1"], 0),
        (NAME, ["registry.example.com:5000/other@sha256:1"], None),
        (NAME, [], None),
    ],
)
def test_it_is_pulled_again_from_the_registry_that_its_name_says(
    image: str, digests: list[str], found: int | None
) -> None:
    assert digest_of(image, digests) == ("" if found is None else digests[found])


def test_an_id_is_of_one_host_and_changes_nothing_else() -> None:
    assert OLD.container is not None and UNKNOWN.container is not None
    assert (OLD.container.image_id, UNKNOWN.container.image_id) == (OLD_ID, "")
    assert len({container_hash(m) for m in (OLD, NEW, UNKNOWN)}) == 1
    assert len({config_hash(m) for m in (OLD, NEW, UNKNOWN)}) == 1
    assert digest(made(there(OLD_ID))) == digest(made())


def test_a_container_of_another_image_is_made_anew() -> None:
    (drift,) = diff(wish(NEW), sees(NEW, made_of=OLD_ID, now=NEW_ID))
    assert drift.kind is Kind.CONTAINER_OUTDATED
    assert drift.cause == f"image {NAME} is another: a1a1a1a1a1a1 → b2b2b2b2b2b2"
    assert [o.effect for o in operations.plan(wish(NEW), (drift,))] == [operations.Effect.RECREATE]
    # Nobody knows of one of both: nothing is concluded.
    assert diff(wish(UNKNOWN), sees(UNKNOWN)) == ()
    assert diff(wish(NEW), sees(NEW, made_of="", now="")) == ()


def test_a_name_that_means_another_image_now_is_told_and_changes_nothing() -> None:
    (drift,) = diff(wish(OLD), sees(OLD, now=NEW_ID))
    assert (drift.kind, drift.desired, drift.observed) == (
        Kind.IMAGE_MOVED,
        f"{NAME} (a1a1a1a1a1a1)",
        "b2b2b2b2b2b2 by that name now",
    )
    assert operations.plan(wish(OLD), (drift,)) == ()


def test_the_plan_says_that_a_name_means_another_image() -> None:
    running = sees(OLD).instances
    (change,) = operations.changes({OLD.id: OLD}, wish(NEW), running)
    assert change.effect is operations.Effect.RECREATE
    assert change.why == f"image {NAME} is another: a1a1a1a1a1a1 → b2b2b2b2b2b2"
    assert operations.changes({OLD.id: OLD}, wish(UNKNOWN), running) == ()
    assert changed(made(there(OLD_ID)), made(there(NEW_ID))) == (f"~ m: {change.why}",)
    assert images_moved([there(OLD_ID)], [there(NEW_ID)])
    assert not images_moved([there(OLD_ID)], [there(NEW_ID, host="gpu-a")])


def test_a_container_is_made_from_the_very_image() -> None:
    (made_from,) = services_of([placed(OLD)]).values()
    assert made_from["image"] == "emp-kept/farm:a1a1a1a1a1a1"
    assert made_from["pull_policy"] == "never"
    assert (made_from["labels"]["emp.image"], made_from["labels"]["emp.image-id"]) == (NAME, OLD_ID)
    assert not same_container(placed(OLD), placed(NEW))
    assert same_container(placed(OLD), placed(OLD, generation=7))


@pytest.mark.parametrize("image", ["farm", "a/farm:1", "r:5000/a/farm", "farm@sha256:00", "r.example/farm:1@sha256:00"])
def test_a_kept_name_is_one_that_no_registry_is_asked_for(image: str) -> None:
    assert kept_name(image, OLD_ID) == "emp-kept/farm:a1a1a1a1a1a1"
    assert built_here(kept_name(image, OLD_ID))
    assert not built_here(image)


def test_a_pull_tells_what_is_new() -> None:
    def layer(name: str, current: int) -> dict[str, object]:
        return {"id": name, "status": "Downloading", "progressDetail": {"current": current, "total": 2**20}}

    pulling = Pulling()
    assert [pulling.step(s) for s in (None, {"status": "Pulling from farm"}, layer("a", 0), layer("b", 2**19))] == [
        "",
        "",
        "0 KiB of 1 MiB",
        "512 KiB of 2 MiB",
    ]
    assert pulling.step(layer("b", 2**19)) == ""
    assert pulling.step({"error": "no space left"}) == ""
    assert pulling.error == "no space left"


def test_a_machine_of_another_runtime_has_no_image() -> None:
    assert container("x").container is not None
    assert desired_machine(made(), machine("p")).container is None
