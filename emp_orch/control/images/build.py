"""Build emp's images, or find them unchanged: the machine's from wheels for its base's Python, the other on it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from emp_orch import __version__
from emp_orch.control.images import pack, wheels
from emp_orch.control.images.docker import Docker
from emp_orch.errors import EmpError
from emp_orch.images import BUILD_LABEL, STAGE_LABEL, VERSION_LABEL
from emp_orch.resources import read_text

DOCKERFILE = "containers/machine/Dockerfile"
CONTROL_DOCKERFILE = "containers/control/Dockerfile"
_LOOK = """
import json, os, platform, sys
libc = (os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else "") or ""
glibc = int(libc.split(".")[1]) if libc.startswith("glibc 2.") else 0
v = sys.version_info
print(json.dumps({"major": v[0], "minor": v[1], "machine": platform.machine(), "glibc": glibc}))
"""


def build(docker: Docker, *, tag: str, base: str, say: Callable[[str], None], extra: Sequence[str] = ()) -> bool:
    """Make `tag` from `base`, with emp and the distributions `extra`. False when it was there already, made of the very
    same things. Raises EmpError.
    """
    docker.check()
    say(f"looking at {base}")
    target = look(docker, base)
    own, versions, dockerfile = pack.pack(), wheels.pinned(), read_text(DOCKERFILE)
    made_of = [target, versions, _image_id(docker, base), *([list(extra)] if extra else [])]
    digest = _digest(own, dockerfile.encode(), msgspec.json.encode(made_of))
    if _label(docker, tag) == digest:
        return False
    with tempfile.TemporaryDirectory(prefix="emp-image-") as folder:
        context = Path(folder) / "context"
        (context / "wheels").mkdir(parents=True)
        (context / "Dockerfile").write_text(dockerfile)
        (context / "wheels" / pack.WHEEL_NAME).write_bytes(own)
        say(f"gathering the wheels for Python {target.major}.{target.minor} on {target.machine}")
        wheels.gather(context / "wheels", target, versions, extra)
        say(f"building {tag}")
        stage = f"{STAGE_LABEL}={digest}"
        arguments = {"BASE": base, "STAGE": digest, "EXTRA": " ".join(extra)}
        docker.build(context, tag=tag, arguments=arguments, labels=_labels(digest), stage=stage)
    return True


def build_control(docker: Docker, *, tag: str, machine: str, cli: str, say: Callable[[str], None]) -> bool:
    """Make `tag` from the image `machine` and docker's command line, out of `cli`. False and raises as `build`."""
    dockerfile = read_text(CONTROL_DOCKERFILE)
    digest = _digest(dockerfile.encode(), msgspec.json.encode([cli, _image_id(docker, machine)]))
    if _label(docker, tag) == digest:
        return False
    with tempfile.TemporaryDirectory(prefix="emp-image-") as folder:
        (Path(folder) / "Dockerfile").write_text(dockerfile)
        say(f"building {tag}")
        docker.build(Path(folder), tag=tag, arguments={"MACHINE": machine, "CLI": cli}, labels=_labels(digest))
    return True


def look(docker: Docker, base: str) -> wheels.Target:
    """The Python of `base`. Raises EmpError when emp cannot run on it."""
    try:
        target = msgspec.json.decode(docker.python(base, _LOOK), type=wheels.Target)
    except (msgspec.DecodeError, msgspec.ValidationError) as e:
        raise EmpError(f"the python3 of {base} gave no answer that makes sense: {e}") from e
    if (target.major, target.minor) < (3, 11):
        raise EmpError(f"{base} has Python {target.major}.{target.minor}; emp needs 3.11 or newer")
    if not target.glibc:
        raise EmpError(
            f"{base} has no glibc", hint="wheels are for glibc: a base of Debian, Ubuntu, Fedora, not Alpine"
        )
    return target


def _digest(*parts: bytes) -> str:
    """Of the parts and of where each ends."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _image_id(docker: Docker, image: str) -> str:
    found = docker.image(image)
    return str(found.get("Id", "")) if found else ""


def _labels(digest: str) -> dict[str, str]:
    return {VERSION_LABEL: __version__, BUILD_LABEL: digest}


def _label(docker: Docker, image: str) -> str:
    found = docker.image(image) or {}
    return str(((found.get("Config") or {}).get("Labels") or {}).get(BUILD_LABEL, ""))
