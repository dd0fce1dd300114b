"""How each of a machine's programs ended last: looked up at each unasked end, kept for reports and for the workers.

supervisord's log says how, the program's own log its last words (docs/adr/0016). Kept in files, so that a new agent of
the same boot knows them too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import structs

from emp_orch.errors import EmpError
from emp_orch.fleet.drift.exits import GONE
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import ProgramEnd
from emp_orch.machine.boot.redis_url import own_url
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.home.programs import Programs
from emp_orch.machine.observe.out_of_memory import OutOfMemoryWatch
from emp_orch.procident import identify, started_ms
from emp_orch.runtimes.last_words import secrets_in
from emp_orch.runtimes.process import exit_files
from emp_orch.runtimes.process.exit_files import Asked
from emp_orch.runtimes.process.exits import Logs, look_up
from emp_orch.store.artifacts.api_access import ApiAccess
from emp_orch.urls import passwords_of

log = logging.getLogger("agent")


class LastExits:
    """Keeps `programs.last_exits`. One agent's, on its loop: each look reads a few kilobytes."""

    def __init__(self, folder: MachineFolder, programs: Programs) -> None:
        self._folder = folder
        self._programs = programs
        self.memory = OutOfMemoryWatch()
        self._logs = Logs(
            own=Path(os.environ.get("EMP_MACHINE_LOG", folder.root / "supervisord.log")),
            programs=Path(os.environ.get("EMP_LOG_DIR", folder.root)),
            run=folder.run,
        )
        try:
            exit_files.make(folder.root)
        except OSError as e:
            log.error("cannot make %s: %s; workers will not know why a service ended", exit_files.FOLDER, e.strerror)
        supervisord = identify(os.getppid())
        self._boot_ms = started_ms(supervisord) if supervisord else 0
        for name, end in exit_files.known(folder.root).items():
            if end.at_ms >= self._boot_ms:
                programs.last_exits[ProgramName(name)] = end
            else:
                exit_files.forget(folder.root, name)

    def ended(self, name: ProgramName, pid: int = 0) -> None:
        """Process `pid` of `name` has just ended, unasked; 0: its last one."""
        end = self._look_up(name, pid) or ProgramEnd(at_ms=int(time.time() * 1000), pid=pid)
        if (memory := self.memory.lately()) is not None:
            end = structs.replace(end, memory=memory)
        self._programs.last_exits[name] = end
        try:
            exit_files.leave(self._folder.root, name, end)
        except OSError as e:
            log.error("cannot write how %s ended: %s", name, e.strerror)

    def asked(self, name: ProgramName, why: str) -> None:
        """Process of `name` is ended now because emp was told to: a job on it can say why."""
        try:
            exit_files.leave_asked(self._folder.root, name, Asked(at_ms=int(time.time() * 1000), why=why))
        except OSError as e:
            log.error("cannot write why %s is restarted: %s", name, e.strerror)

    def missed(self, steps: Iterable[ProgramName]) -> None:
        """Look up the ends that came while no agent was there; `steps` are to end, and may have done so well."""
        well = {n for n in steps if (got := self._programs.get(n)) and got.exit_status == 0}
        for name, report in self._programs.reports.items():
            if report.state in GONE and report.last_end is None and name not in well and self._look_up(name, 0):
                self.ended(name)

    def keep_only(self, names: Iterable[ProgramName]) -> None:
        """Forget the ends of programs that are others now, or gone."""
        for name in set(self._programs.last_exits) - set(names):
            del self._programs.last_exits[name]
            exit_files.forget(self._folder.root, name)

    def _look_up(self, name: ProgramName, pid: int) -> ProgramEnd | None:
        return look_up(self._logs, name, self.secrets(), pid=pid, since_ms=self._boot_ms)

    def secrets(self) -> list[str]:
        """What no line may show: what this machine's programs were given in confidence."""
        named = os.environ.get("EMP_SECRETS")
        found = [*secrets_in(Path(named) if named else self._folder.secrets)]
        found.append(_token(self._folder.api_access))
        for name in ("HUB_REDIS_URL", "REDIS_URL", "EMP_ARTIFACTS_URL"):
            found += passwords_of(os.environ.get(name, ""))
        with suppress(EmpError):
            found += passwords_of(own_url())
        return found


def _token(path: Path) -> str:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ApiAccess).token
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return ""
