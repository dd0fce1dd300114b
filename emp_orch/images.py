"""The names of the images that emp builds."""

from __future__ import annotations

from emp_orch import __version__

MACHINE_REPOSITORY = "emp-machine"
# What a machine runs whose emp.yaml names no image.
IMAGE = f"{MACHINE_REPOSITORY}:{__version__}"
CONTROL_REPOSITORY = "emp-control"
# What the parts of the control plane run, where they are containers.
CONTROL_IMAGE = f"{CONTROL_REPOSITORY}:{__version__}"


def built_here(image: str) -> bool:
    """Whether `image` is one that emp builds and no registry has, so that nobody's of that name is ever pulled."""
    return image.partition("@")[0].partition(":")[0] in (MACHINE_REPOSITORY, CONTROL_REPOSITORY)
