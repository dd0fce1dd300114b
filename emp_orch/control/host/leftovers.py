"""What emp's stops on this host ended beyond programs, as the machines' supervisords write it into their logs.

Of a machine in a container nothing is told: what it leaves ends with the container.
"""

from __future__ import annotations

from emp_orch.fleet.drift.leftovers import Left
from emp_orch.fleet.model.fleet import AGENT
from emp_orch.fleet.names import LOG_PREFIX
from emp_orch.layout import Layout
from emp_orch.runtimes.process.supervisor_log import LeftoverLine, LogPosition, leftovers_since, log_end


class LeftBehind:
    """Begun before the stop; asked for after it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._places = {path: log_end(path) for path in layout.logs.glob(f"{LOG_PREFIX}*.log")}

    def found(self, machine: str | None = None, program: str | None = None) -> tuple[Left, ...]:
        """What was ended since: of all machines, of one, or of one program."""
        logs = sorted(self._layout.logs.glob(f"{LOG_PREFIX}{machine or '*'}.log"))
        by_program: dict[tuple[str, str], list[LeftoverLine]] = {}
        for path in logs:
            name = path.stem.removeprefix(LOG_PREFIX)
            for line in leftovers_since(path, self._places.get(path, LogPosition())):
                if program in (None, line.program) and line.program != AGENT:
                    by_program.setdefault((name, line.program), []).append(line)
        return tuple(
            Left(
                machine=name,
                program=of,
                count=sum(line.count for line in lines),
                processes=tuple(p for line in lines for p in line.processes),
            )
            for (name, of), lines in by_program.items()
        )
