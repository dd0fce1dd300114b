"""Which of emp's images on an engine nothing needs any more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from emp_orch.control.host import generation as generations
from emp_orch.control.images.docker import Docker
from emp_orch.errors import EmpError
from emp_orch.images import (
    BUILD_LABEL,
    CONTROL_IMAGE,
    CONTROL_REPOSITORY,
    KEPT_REPOSITORY,
    MACHINE_IMAGE,
    MACHINE_REPOSITORY,
)
from emp_orch.layout import Layout
from emp_orch.store.fleet.generations import Generation, list_generations


def needed_here(directory: Path, tell: Callable[[str], None]) -> frozenset[str]:
    """The ids of the images that the generations of the fleet in `directory` name; `tell` of those that nobody can read
    now.
    """
    layout = Layout(directory)
    if not layout.control.is_dir():
        return frozenset()
    found = []
    with suppress(EmpError):
        kept = generations.kept(layout)
        found += [kept] if kept is not None else []
    try:
        found += asyncio.run(_generations(layout))
    except EmpError as e:
        tell(f"{e.message}: of this fleet only what is in force is kept, not what `emp rollback` goes back to")
    return frozenset(i.id for g in found for i in g.fleet.images)


async def _generations(layout: Layout) -> list[Generation]:
    from emp_orch.control.apply.earlier_generations import reading
    from emp_orch.store.redis.client import TRANSIENT, unreachable
    from emp_orch.store.redis.keys import Keys

    async with reading(layout) as (settings, r):
        try:
            return await list_generations(r, Keys(settings.prefix), settings.fleet)
        except TRANSIENT as e:
            raise unreachable(settings.redis_url, e) from e


def pruned(docker: Docker, needed: frozenset[str]) -> list[str]:
    """Remove what nothing needs of images with emp's labels or by its names: what they were called, or their ids."""
    listed = [*docker.images(f"reference={KEPT_REPOSITORY}/*"), *docker.images(f"label={BUILD_LABEL}")]
    return [name for name in unneeded(listed, needed | docker.used()) if docker.remove(name)]


def unneeded(listed: Iterable[Mapping[str, str]], keep: Collection[str]) -> tuple[str, ...]:
    """Of images in the words of `docker image ls`, those to remove: by name, or by id where they have none."""
    found: dict[str, None] = {}
    for image in listed:
        named = f"{image['Repository']}:{image['Tag']}"
        image_id = image["ID"]
        name = image_id if "<none>" in named else named
        ours = "<none>" in named or _OF_A_VERSION.fullmatch(named) or named.startswith(f"{KEPT_REPOSITORY}/")
        if ours and image_id not in keep and named not in (MACHINE_IMAGE, CONTROL_IMAGE):
            found[name] = None
    return tuple(found)


# Another name is one that somebody gave it, and theirs.
_OF_A_VERSION = re.compile(f"({MACHINE_REPOSITORY}|{CONTROL_REPOSITORY}):[0-9][^/]*")
