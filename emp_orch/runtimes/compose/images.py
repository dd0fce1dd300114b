"""The image of a machine's container, on its Docker host: which one a name means, and that it is there, kept by a name
of emp's own, before anything that runs is stopped for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.containers import DesiredContainer, short_id
from emp_orch.fleet.model.fleet import ImageThere
from emp_orch.fleet.model.hosts import image_build
from emp_orch.images import built_here, kept_name, last_name, repository
from emp_orch.runtimes.compose.engine import Engine

Tell = Callable[[str], None]


def meant(engine: Engine, image: str) -> ImageThere | None:
    """What `image` means on this host now; None when it has none of that name."""
    found = engine.image(image)
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
        if engine.image(container.image) is None:
            _fetch(engine, container.image, container.image, tell)
        return
    if not engine.image_id(container.image_id):
        if not container.image_digest:
            raise EmpError(
                f"{engine.named} no longer has the image that {container.image} was when this was applied "
                f"({short_id(container.image_id)}), and no registry has it",
                hint="`emp apply` takes the one that is there now",
            )
        _fetch(engine, container.image_digest, container.image, tell)
    engine.tag(container.image_id, kept_name(container.image, container.image_id))


def _fetch(engine: Engine, reference: str, image: str, tell: Tell) -> None:
    if built_here(reference):
        how = image_build(engine.host.name, engine.host.url, image)
        raise EmpError(f"{engine.named} has no image {image}", hint=f"`{how}` makes it, once a host")
    engine.pull(reference, tell)
