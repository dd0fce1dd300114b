"""Images on a Docker host: which one a name means, how one is pulled, and that a machine's is there, kept by a name of
emp's own, before anything that runs is stopped for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from docker.errors import NotFound

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.containers import short_id
from emp_orch.fleet.desired.values import DesiredContainer
from emp_orch.fleet.model.fleet import ImageThere
from emp_orch.fleet.model.hosts import image_build
from emp_orch.images import built_here, kept_name, last_name, repository
from emp_orch.runtimes.compose.connection import EngineAway
from emp_orch.runtimes.compose.engine import Engine
from emp_orch.units import show_bytes

# How long a pull may say nothing.
PULL_S = 300.0
_PULL = (
    "check its name, and `docker login` where its registry asks for it; your own images must be built or loaded there"
)

Tell = Callable[[str], None]


class Pulling:
    """How far a pull is, by what its engine tells of each layer."""

    def __init__(self) -> None:
        self.error = ""
        self._layers: dict[str, tuple[int, int]] = {}
        self._shown = ""

    def step(self, told: object) -> str:
        """What there is to say that was not said before; empty for nothing."""
        if not isinstance(told, dict):
            return ""
        self.error = str(told.get("error") or self.error)
        detail = told.get("progressDetail") or {}
        if told.get("status") == "Downloading" and isinstance(detail.get("total"), int):
            self._layers[str(told.get("id"))] = (int(detail.get("current", 0)), detail["total"])
        done, total = (sum(n) for n in zip(*self._layers.values(), strict=True)) if self._layers else (0, 0)
        shown = f"{show_bytes(done)} of {show_bytes(total)}" if total else ""
        if shown == self._shown:
            return ""
        self._shown = shown
        return shown


def inspected(engine: Engine, name: str) -> dict[str, Any] | None:
    """`docker image inspect` of an image by its name or id; None when there is none."""
    with engine.asking() as client:
        try:
            return dict(cast(Any, client).inspect_image(name))
        except NotFound:
            return None


def id_of(engine: Engine, name: str) -> str:
    """What `name` means here; empty when there is no such image."""
    return str((inspected(engine, name) or {}).get("Id", ""))


def lacking(engine: Engine, images: Iterable[str]) -> tuple[str, ...]:
    """Those of `images` that are not here, and that no registry has."""
    return tuple(sorted(i for i in set(images) if built_here(i) and not id_of(engine, i)))


def tag(engine: Engine, image_id: str, name: str) -> None:
    """Let `name` mean that image."""
    repository, _, tag = name.rpartition(":")
    with engine.asking() as client:
        client.tag(image_id, repository, tag)


def pull(engine: Engine, reference: str, tell: Tell) -> None:
    """Pull an image by name or digest; `tell` how far it is, from time to time. Raises EmpError with the reason."""
    what = f"{reference} on Docker host {engine.host.name}"
    tell(f"pulling {what}")
    patient = Engine(engine.host, answer_s=PULL_S)
    progress = Pulling()
    try:
        with patient.asking() as client:
            for step in client.pull(reference, stream=True, decode=True):
                if told := progress.step(step):
                    tell(f"pulling {told}: {what}")  # a terminal's width may end within the name
    except EngineAway:
        raise
    except EmpError as e:
        raise EmpError(f"{engine.named} cannot pull {reference}: {e.message.partition(': ')[2]}", hint=_PULL) from e
    finally:
        patient.close()
    if progress.error:
        raise EmpError(f"{engine.named} cannot pull {reference}: {progress.error}", hint=_PULL)


def meant(engine: Engine, image: str) -> ImageThere | None:
    """What `image` means on this host now; None when it has none of that name."""
    found = inspected(engine, image)
    if found is None:
        return None
    digests = [str(d) for d in found.get("RepoDigests") or ()]
    return ImageThere(host=engine.host.name, image=image, id=str(found.get("Id", "")), digest=digest_of(image, digests))


def digest_of(image: str, digests: Sequence[str]) -> str:
    """By which of an image's `digests` (REPOSITORY@DIGEST) it is pulled again: that of the registry that `image` names;
    else, as the engine writes some names shorter, one of the same last step; empty when there is none.
    """
    own = repository(image)
    exact = next((d for d in digests if repository(d) == own), "")
    return exact or next((d for d in digests if last_name(d) == last_name(image)), "")


def have(engine: Engine, container: DesiredContainer, tell: Tell) -> None:
    """See to it that the image that `container` is made from is on its host. Raises EmpError when it cannot be had."""
    if not container.image_id:
        if inspected(engine, container.image) is None:
            _fetch(engine, container.image, container.image, tell)
        return
    if not id_of(engine, container.image_id):
        if not container.image_digest:
            raise EmpError(
                f"{engine.named} no longer has the image that {container.image} was when this was applied "
                f"({short_id(container.image_id)}), and no registry has it",
                hint="`emp apply` takes the one that is there now",
            )
        _fetch(engine, container.image_digest, container.image, tell)
    tag(engine, container.image_id, kept_name(container.image, container.image_id))


def _fetch(engine: Engine, reference: str, image: str, tell: Tell) -> None:
    if built_here(reference):
        how = image_build(engine.host.name, engine.host.url, image)
        raise EmpError(f"{engine.named} has no image {image}", hint=f"`{how}` makes it, once a host")
    pull(engine, reference, tell)
