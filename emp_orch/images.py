"""The names of emp's container images: those of one version of emp, made by `emp images build`."""

from __future__ import annotations

from emp_orch import __version__

MACHINE_REPOSITORY = "emp-machine"
# What a machine's container is made from where emp.yaml names no other image.
MACHINE_IMAGE = f"{MACHINE_REPOSITORY}:{__version__}"
CONTROL_REPOSITORY = "emp-control"
# What the parts of the control plane are made from, where they are containers.
CONTROL_IMAGE = f"{CONTROL_REPOSITORY}:{__version__}"
# A base with Python that anybody can pull.
DEFAULT_BASE = "python:3.12-slim"
# Where the control plane's image has the docker command and Compose from.
DEFAULT_CLI = "docker:27-cli"
# The interpreter with emp in it, in all of them (containers/machine/Dockerfile).
PYTHON = "/opt/emp/bin/python3"
# Labels of the images: the version of emp in it, and a digest of all that it was made from.
VERSION_LABEL = "emp.version"
BUILD_LABEL = "emp.build"


def built_here(image: str) -> bool:
    """Whether `image` is one that emp builds and no registry has, so that nobody's of that name is ever pulled."""
    return image.partition("@")[0].partition(":")[0] in (MACHINE_REPOSITORY, CONTROL_REPOSITORY)
