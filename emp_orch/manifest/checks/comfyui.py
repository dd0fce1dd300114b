"""`builtin: comfyui` in emp.yaml: whether its keys fit each other, and this host holds what they name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emp_orch.comfyui import checkout, options
from emp_orch.fleet.model.fleet import Checkout, Fleet, Machine, Scale, Service
from emp_orch.manifest.comfyui import COMFYUI, KEYS
from emp_orch.manifest.show import found
from emp_orch.manifest.text.problems import Path as Place
from emp_orch.manifest.text.problems import Report
from emp_orch.manifest.text.tree import Sequence, Source

if TYPE_CHECKING:
    from emp_orch.manifest.build import Built


def check(built: Built, source: Source, report: Report) -> None:
    """Report what no schema can say of these keys."""
    checks = _Checks(source, report)
    for service in built.fleet.services.values():
        checks.service(service)


def check_here(built: Built, source: Source, report: Report) -> None:
    """Report checkouts that machines of this host are to start and that this host does not hold.

    What a container's image or another box holds, nobody here can know; nor what an `install` is still to bring.
    """
    here = {s.name: s for m in built.fleet.machines if m.traits.shares_host for s in _of(built.fleet, m)}
    for service in here.values():
        path: Place = ("services", service.name)
        if service.checkout is None or service.install is not None or not report.sound(path):
            continue
        try:
            checkout.look(Path(service.checkout.path), service.checkout.python)
        except checkout.NotUsable as e:
            at = (*path, e.key) if source.node((*path, e.key)) else (*path, "path")
            report.add(at, source.value_mark(at), e.message, e.hint)


def notes(fleet: Fleet) -> Iterator[str]:
    """What may be meant, and is worth a second look."""
    for machine in fleet.machines:
        if machine.traits.in_container:
            for service in _of(fleet, machine):
                if (
                    service.checkout is not None
                    and service.install is None
                    and not _mounted(machine, service.checkout.path)
                ):
                    where = f"{machine.id} runs {service.name} from {service.checkout.path}"
                    yield f"{machine.origin}: note: {where}, which its image must hold: none of its volumes does"
    for service in fleet.services.values():
        if _shares(service):
            what = f"the slots of {service.name} write into one output folder; builtin comfyui gives each its own"
            yield f"{service.origin}: note: {what} (docs/comfyui.md)"


def _shares(service: Service) -> bool:
    """Whether a command of the user's own starts one checkout for every slot, with no output folder by slot."""
    words = service.command or ()
    starts = any(word == checkout.MAIN or word.endswith(f"/{checkout.MAIN}") for word in words)
    apart = any(
        word.partition("=")[0] in (options.OUTPUT, "--base-directory") and _by_slot(f"{word} {value}")
        for word, value in itertools.pairwise((*words, ""))
    )
    return service.connector == COMFYUI and service.scale is Scale.PER_GPU and starts and not apart


def _by_slot(words: str) -> bool:
    return "${gpu}" in words or "${port}" in words


def _of(fleet: Fleet, machine: Machine) -> Iterator[Service]:
    """The services of this kind that `machine` runs."""
    return (s for n in machine.services if (s := fleet.services.get(n)) is not None and s.checkout is not None)


def _mounted(machine: Machine, path: str) -> bool:
    """Whether a volume of the container holds `path`."""
    targets = (volume.target.rstrip("/") for volume in machine.volumes)
    return any(path == target or path.startswith(f"{target}/") for target in targets)


class _Checks:
    def __init__(self, source: Source, report: Report) -> None:
        self._source = source
        self._report = report

    def _bad(self, path: Place, message: str, hint: str = "") -> None:
        self._report.add(path, self._source.value_mark(path), message, hint)

    def service(self, service: Service) -> None:
        path: Place = ("services", service.name)
        if service.checkout is None:
            for key in KEYS:
                if self._source.node((*path, key)) is not None:
                    mark = self._source.key_mark((*path, key))
                    message = "of no effect without builtin comfyui"
                    self._report.add((*path, key), mark, message, "builtin: comfyui, or remove it")
            return
        self._path(path, service.checkout)
        self._models((*path, "models"), service.checkout)
        for index, option, why in options.refused(service.checkout.args):
            self._bad((*path, "args", index), f"{option} is not for args: {why}", "remove it")

    def _path(self, path: Place, asked: Checkout) -> None:
        if asked.path:
            self._absolute((*path, "path"), asked.path)
        else:
            mark = self._source.key_mark((*path, "path"))
            message = "builtin comfyui needs the path of a checkout of ComfyUI"
            self._report.add((*path, "path"), mark, message, "path: /opt/ComfyUI")
        if asked.python is not None and "/" in asked.python:
            self._absolute((*path, "python"), asked.python)

    def _absolute(self, at: Place, value: str) -> None:
        """Machines have other homes and working directories than whoever writes the file."""
        if value.startswith("~"):
            message = "~ is not replaced: a machine may be another user's, or elsewhere"
            self._bad(at, message, "${HOME} stands for your own home" if value[1:2] in ("", "/") else "")
        elif not value.startswith("/"):
            shown = found(self._source, at, value)
            self._bad(at, f"expected an absolute path, found {shown}", "a machine works in a folder of its own")

    def _models(self, path: Place, asked: Checkout) -> None:
        listed = isinstance(self._source.node(path), Sequence)
        for index, folder in enumerate(asked.model_folders):
            self._absolute((*path, index) if listed else path, folder)
        for section in asked.model_sections:
            self._section((*path, section.name), dict(section.paths))

    def _section(self, path: Place, paths: dict[str, str | bool]) -> None:
        """Relative paths would be looked for beside a file that emp writes. ComfyUI itself replaces ~ and $NAME."""
        base = paths.get("base_path")
        if isinstance(base, str):
            if not base.startswith(("/", "~", "$")):
                at = (*path, "base_path")
                self._bad(at, f"expected an absolute path, found {found(self._source, at, base)}")
            return
        for key, value in paths.items():
            lines = value.split("\n") if isinstance(value, str) else []
            if any(line and not line.startswith("/") for line in lines):
                self._bad((*path, key), "expected absolute paths: there is no base_path", "base_path: /srv/models")
