"""The names of emp's container images: one image for each version of emp, made by `emp images build`."""

from __future__ import annotations

from emp_orch import __version__

MACHINE_REPOSITORY = "emp-machine"
# What a machine's container is made from where emp.yaml names no other image.
MACHINE_IMAGE = f"{MACHINE_REPOSITORY}:{__version__}"
# A base with Python that anybody can pull.
DEFAULT_BASE = "python:3.12-slim"
# Labels of the images: the version of emp in it, and a digest of all that it was made from.
VERSION_LABEL = "emp.version"
BUILD_LABEL = "emp.build"
