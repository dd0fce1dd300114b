"""The names of emp's container images: those of one version of emp, made by `emp images build`."""

from __future__ import annotations

from collections.abc import Iterable

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
# Artifact stores that need a package of their own: the schemes of their URLs, and the package. The first is its name.
STORES = {("s3", "s3a"): "s3fs", ("gcs", "gs"): "gcsfs", ("abfs", "abfss", "az"): "adlfs"}
# The interpreter with emp in it, in all of them (containers/machine/Dockerfile).
PYTHON = "/opt/emp/bin/python3"
# Labels of the images: the version of emp in it, and a digest of all that it was made from.
VERSION_LABEL = "emp.version"
BUILD_LABEL = "emp.build"
# Of what only the build needs.
STAGE_LABEL = "emp.stage"


# What keeps an image that a generation names on its host, when its own name goes on to another.
KEPT_REPOSITORY = "emp-kept"


def store_packages(names: Iterable[str]) -> list[str]:
    """The packages of stores that are called so."""
    return sorted({package for (name, *_), package in STORES.items() if name in names})


def way_to_store(scheme: str) -> str:
    """What to do where the package of a store is missing; empty for one that emp does not know."""
    for schemes, package in STORES.items():
        if scheme in schemes:
            image = f"in the image of machines: `emp images build --store {schemes[0]}`"
            return f"pip install {package} where emp runs; {image}"
    return ""


def repository(image: str) -> str:
    """The name of an image without tag and digest."""
    path, slash, last = image.partition("@")[0].rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}"


def last_name(image: str) -> str:
    """Of the name of an image, the last step, without tag and digest."""
    return repository(image).rpartition("/")[2]


def kept_name(image: str, image_id: str) -> str:
    """emp's own name, on its host, for what `image` was when it was applied: whatever is built or pulled later."""
    return f"{KEPT_REPOSITORY}/{last_name(image)}:{image_id.removeprefix('sha256:')[:12]}"


def built_here(image: str) -> bool:
    """Whether `image` is one that emp builds and no registry has, so that nobody's of that name is ever pulled."""
    name = image.partition("@")[0].partition(":")[0]
    return name in (MACHINE_REPOSITORY, CONTROL_REPOSITORY) or name.startswith(f"{KEPT_REPOSITORY}/")
