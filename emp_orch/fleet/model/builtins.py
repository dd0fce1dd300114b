"""Command lines of the services that come with emp. Each begins with EMP: a subcommand of emp's starts them."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from emp_orch.fleet.model.fleet import Checkout, Service

# First word of a command that is emp itself; the launcher puts this host's interpreter in its place.
EMP = "@emp"

# Puts the values of one program into a text of emp.yaml.
Fill = Callable[[str], str]


def preparing(service: Service) -> tuple[str, ...]:
    """The set-up step of a builtin service that names no `install` of its own."""
    if service.checkout is not None:
        return (EMP, "comfyui", "--check", *_place(service.checkout))
    return (EMP, "simulate", "--prepare", "--dir", data_dir(service, None))


def serving(
    service: Service, slot: int | None, port: int | None, *, published: bool, fill: Fill, max_input_bytes: int | None
) -> tuple[str, ...]:
    """A builtin service itself, listening on `port`. `max_input_bytes`: the largest file that jobs bring, if any do."""
    # Docker hands a published port's connections to the container's own address, not to its loopback.
    host = ("--host", "0.0.0.0") if published else ()  # noqa: S104
    where = (*host, "--port", str(port), "--dir", data_dir(service, slot))
    if service.checkout is None:
        return (EMP, "simulate", *where, *(() if slot is None else ("--gpu", str(slot))))
    cwd = () if service.cwd is None else ("--cwd", fill(service.cwd))
    args = tuple(fill(word) for word in service.checkout.args)
    upload = () if max_input_bytes is None else ("--upload-mib", str(math.ceil(max_input_bytes / 2**20)))
    ours = (*_place(service.checkout), *where, *cwd, *_models(service.checkout), *upload)
    return (EMP, "comfyui", *ours, *(("--", *args) if args else ()))


def _place(checkout: Checkout) -> tuple[str, ...]:
    return ("--path", checkout.path, *(() if checkout.python is None else ("--python", checkout.python)))


def _models(checkout: Checkout) -> tuple[str, ...]:
    words = [word for folder in checkout.model_folders for word in ("--model-folder", folder)]
    if checkout.model_sections:
        sections = {section.name: dict(section.paths) for section in checkout.model_sections}
        words += ["--model-paths", msgspec.json.encode(sections).decode()]
    return tuple(words)


def data_dir(service: Service, slot: int | None) -> str:
    """Relative to the machine's folder, which is every program's working directory unless `cwd` says else."""
    return f"data/{service.name}" if slot is None else f"data/{service.name}-gpu{slot}"
