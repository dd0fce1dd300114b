"""`provider_options` of the `swarm` provider; docs/pools-swarm.md describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec import Struct

from emp_orch.fleet.model.hosts import LOCAL
from emp_orch.options.base import WrongOption, only

SWARM = "swarm"
# What NVIDIA's runtime looks for when it is told of Swarm: DOCKER_RESOURCE_GPU.
GPU_RESOURCE = "gpu"
NO_RESOURCE = "none"
# Of emp's machine image.
IMAGE_USER = "10001:10001"

_ABOUT = "provider_options of the {} provider"
_KNOWN = ("host", "image", "constraints", "gpu_resource", "network", "mounts", "user")
_OF_MOUNT = ("source", "target", "read_only")
_MOST = 50

_CONSTRAINT = re.compile(
    r"(node\.(id|hostname|role|platform\.(os|arch)|labels\.[\w.-]+)|engine\.labels\.[\w.-]+)\s*(==|!=)\s*[\w.:/-]+",
    re.ASCII | re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,254}")
_USER = re.compile(r"[0-9]{1,10}:[0-9]{1,10}")


class Mount(Struct, frozen=True, kw_only=True):
    """`source` is a folder of the node where it begins with `/`, else a volume of that name on the node."""

    source: str
    target: str
    read_only: bool = False


class Options(Struct, frozen=True, kw_only=True):
    """`host`: the manager, by its name in `hosts:`. `image` empty: the pool's. `gpu_resource` None: `gpu`, where the
    pool's boxes have GPUs; NO_RESOURCE: none is taken. `network` empty: the bridge of the node. `user` is UID:GID of
    the box and of its token.
    """

    host: str = LOCAL
    image: str = ""
    constraints: tuple[str, ...] = ()
    gpu_resource: str | None = None
    network: str = ""
    mounts: tuple[Mount, ...] = ()
    user: str = IMAGE_USER


_wrong = partial(WrongOption, SWARM, what_of=_ABOUT)


def options_of(given: Mapping[str, Any]) -> Options:
    """`given` as Options. Raises WrongOption, which names the option that is wrong."""
    only(SWARM, given, _KNOWN, what_of=_ABOUT)
    texts = {
        "host": _text(given, "host", _NAME, "the name of one of `hosts:`, a manager of the Swarm"),
        "image": _text(given, "image", _IMAGE, "the name of an image, as registry.example/emp-machine:1"),
        "gpu_resource": _text(given, "gpu_resource", _NAME, "a kind of node-generic-resources, as gpu or NVIDIA-GPU"),
        "network": _text(given, "network", _NAME, "the name of a network of the Swarm, or host"),
        "user": _text(given, "user", _USER, "numbers, as '10001:10001'"),
    }
    constraints = tuple(_constraint(one, n) for n, one in enumerate(_listed(given, "constraints")))
    mounts = tuple(_mount(one, n) for n, one in enumerate(_listed(given, "mounts")))
    return Options(**{k: v for k, v in texts.items() if v is not None}, constraints=constraints, mounts=mounts)


def _text(given: Mapping[str, Any], name: str, rule: re.Pattern[str], wanted: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not rule.fullmatch(value):
        raise _wrong(name, "does not fit", f"write {wanted}", found=value)
    return value


def _listed(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MOST:
        raise _wrong(name, "does not fit", f"write a list, of {_MOST} at most", found=value)
    return value


def _constraint(value: Any, n: int) -> str:
    if not isinstance(value, str) or not _CONSTRAINT.fullmatch(value):
        hint = "write node.labels.NAME==VALUE, or node.hostname!=VALUE: what `docker service create --constraint` takes"
        raise _wrong(f"constraints.{n}", "does not fit", hint, found=value)
    return value


def _mount(value: Any, n: int) -> Mount:
    at = f"mounts.{n}"
    if not isinstance(value, dict):
        raise _wrong(at, "does not fit", "write {source: models, target: /models, read_only: true}", found=value)
    only(SWARM, value, _OF_MOUNT, where=f"{at}.", what_of=_ABOUT)
    source, target, read_only = value.get("source"), value.get("target"), value.get("read_only", False)
    if not isinstance(source, str) or not (_NAME.fullmatch(source) or _is_path(source)):
        hint = "write the name of a volume, or the whole path of a folder of the nodes"
        raise _wrong(f"{at}.source", "does not fit" if source else "is missing", hint, found=source)
    if not isinstance(target, str) or not _is_path(target):
        raise _wrong(f"{at}.target", "does not fit" if target else "is missing", "write a whole path", found=target)
    if not isinstance(read_only, bool):
        raise _wrong(f"{at}.read_only", "does not fit", "write true or false", found=read_only)
    return Mount(source=source, target=target, read_only=read_only)


def _is_path(text: str) -> bool:
    return text.startswith("/") and text.isprintable() and ".." not in text.split("/") and len(text) <= 1024
