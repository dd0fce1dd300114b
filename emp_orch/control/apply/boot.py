"""The systemd unit that brings a fleet up at boot: written, enabled, looked at, removed.

A unit of the system where root asks, else of the user's own manager. Source: systemctl(1), loginctl(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from emp_orch.control.apply.down import longest_s
from emp_orch.control.host import generation as generations
from emp_orch.errors import EmpError, UsageError
from emp_orch.host.users import name_of
from emp_orch.isolation import python
from emp_orch.layout import Layout
from emp_orch.render.systemd import Unit, render_unit
from emp_orch.resources import read_text

OURS = "# Written by `emp boot install` in "
ANSWER_S = 60.0
_SYSTEM = Path("/etc/systemd/system")
_RUNS = Path("/run/systemd/system")


class Boot(Struct, frozen=True, kw_only=True):
    """What there is of a fleet's unit. `state` is systemd's ActiveState, empty where none is known.

    `outdated`: `emp boot install` would write another text now. `lingers`: a user's manager runs from boot on, and not
    from the login on.
    """

    unit: str
    path: str
    installed: bool
    enabled: bool
    state: str
    outdated: bool
    lingers: bool

    @property
    def at_boot(self) -> bool:
        return self.installed and self.enabled and self.lingers


class Systemd:
    """The manager that a fleet's unit belongs to, and the unit's place there."""

    def __init__(self, layout: Layout, environ: Mapping[str, str], *, system: bool) -> None:
        self._layout = layout
        self._environ = environ
        self.system = system
        generation = generations.kept(layout)
        if generation is None:
            raise UsageError(
                f"no fleet was applied in {layout.root}", hint="run `emp apply` first: what it applied comes up at boot"
            )
        self._fleet = generation.fleet
        self.unit = f"emp-{self._fleet.name}.service"
        self.path = self._folder() / self.unit

    def _folder(self) -> Path:
        if self.system:
            return _SYSTEM
        home = self._environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return Path(home) / "systemd" / "user"

    def text(self) -> str:
        """The unit as this emp writes it for what was applied last."""
        root = self._layout.root
        return render_unit(
            read_text("templates/emp.service.j2"),
            Unit(
                fleet=self._fleet.name,
                folder=str(root),
                command=tuple(python("-m", "emp_orch", "-C", str(root), "start", "--foreground")),
                path=self._environ.get("PATH") or os.defpath,
                user=name_of(root.stat().st_uid) if self.system else "",
                stop_s=longest_s(self._fleet),
            ),
        )

    def look(self) -> Boot:
        """Raises EmpError for a file that cannot be read."""
        found = self._found()
        if found is not None and not self._is_ours(found):
            found = None  # that of another folder does not bring this fleet up
        runs = _RUNS.is_dir()
        return Boot(
            unit=self.unit,
            path=str(self.path),
            installed=found is not None,
            enabled=runs and found is not None and self._ask("is-enabled", self.unit) == "enabled",
            state=self._ask("is-active", self.unit) if runs and found is not None else "",
            outdated=found is not None and _but_path(found) != _but_path(self.text()),
            lingers=self.system or _lingers(),
        )

    def install(self, *, start: bool) -> Boot:
        """Write the unit and enable it; `start` it too, which for a fleet that runs means to stay beside it.

        Raises EmpError where there is no systemd, it refuses, or another folder has a unit of that name.
        """
        self._refuse_without()
        self._refuse_others()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_suffix(".new")
            new.write_text(self.text())
            new.replace(self.path)
        except OSError as e:
            raise EmpError(f"cannot write {self.path}: {e.strerror}", hint=_ROOT if self.system else "") from e
        self._do("daemon-reload")
        self._do("enable", self.unit)
        if start:
            self._do("start", self.unit)
        return self.look()

    def remove(self) -> Boot:
        """Disable the unit and take its file away; what runs goes on. Raises as `install`."""
        self._refuse_without()
        self._refuse_others()
        if self._found() is not None:
            self._do("disable", self.unit)
            try:
                self.path.unlink(missing_ok=True)
            except OSError as e:
                raise EmpError(f"cannot remove {self.path}: {e.strerror}", hint=_ROOT if self.system else "") from e
            self._do("daemon-reload")
        return self.look()

    def _found(self) -> str | None:
        try:
            return self.path.read_text()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as e:
            raise EmpError(f"cannot read {self.path}: {e}") from e

    def _refuse_others(self) -> None:
        found = self._found()
        if found is not None and not self._is_ours(found):
            first = _first_line(found)
            whose = f"is that of the fleet in {first.removeprefix(OURS)}" if first.startswith(OURS) else "is not emp's"
            raise EmpError(f"{self.path} {whose}", hint="give this fleet another name, or remove that unit first")

    def _is_ours(self, found: str) -> bool:
        return _first_line(found) == _first_line(self.text())

    def _refuse_without(self) -> None:
        if not _RUNS.is_dir():
            raise EmpError(
                "this host was not booted by systemd",
                hint=f"let what starts services here run: emp -C {self._layout.root} start (docs/operating.md, Boot);"
                " `emp boot install --print` shows the unit",
            )

    def _do(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise EmpError(f"systemctl {' '.join(words)} exited with status {done.returncode}: {said}")

    def _ask(self, *words: str) -> str:
        """systemd's word, whatever the exit status says."""
        return self._run(*words).stdout.strip()

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return _run("systemctl", *([] if self.system else ["--user"]), *words)


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    """Raises EmpError when it is not there, or does not end in time."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=ANSWER_S)
    except FileNotFoundError:
        raise EmpError(f"there is no {words[0]} here", hint="is systemd installed?") from None
    except subprocess.TimeoutExpired:
        raise EmpError(f"{' '.join(words)} did not end within {ANSWER_S:.0f} s") from None


def _first_line(text: str) -> str:
    """It says whose the unit is."""
    return text.partition("\n")[0]


def _but_path(text: str) -> list[str]:
    """The unit without the PATH of the shell that wrote it: each shell has its own."""
    return [line for line in text.splitlines() if not line.startswith("Environment=")]


_ROOT = "a unit of the system takes root: sudo, or `emp boot install --user`"


def _lingers() -> bool:
    """Whether our user's manager is started at boot."""
    if shutil.which("loginctl") is None:
        return False
    return _run("loginctl", "show-user", name_of(os.getuid()), "--property=Linger", "--value").stdout.strip() == "yes"
