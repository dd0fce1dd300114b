"""Whether the service of a run ended during it, and how: from what the machine's agent left in files, without Redis.

A machine of an earlier version leaves none, nor has a worker that was started by hand: then a run says what it met
itself. docs/adr/0016.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from msgspec import Struct

from emp_orch.fleet.drift.exits import how, how_in_short
from emp_orch.fleet.model.observed import ProgramEnd
from emp_orch.jobs.document.model import Crash, JobError
from emp_orch.runtimes.process import exit_files

# A look is one open of a small file.
LOOK_S = 0.1
# A connection breaks before the agent has heard of the end, and has read why.
TOLD_S = 1.0


class ServiceEnd(Struct, frozen=True, kw_only=True):
    """`own`: of this worker's slot alone; what others' jobs run on too, any of them may have ended. `asked`: why emp
    restarted it, empty for an end that nobody asked for.
    """

    service: str
    own: bool
    end: ProgramEnd
    asked: str = ""

    @property
    def error(self) -> JobError:
        """`comfyui exited with status 3 during this job; last words: …`."""
        if self.asked:
            return JobError(message=f"emp restarted {self.service} during this job: {self.asked}", retryable=True)
        last = f"; last words: {self.end.lines[-1]}" if self.end.lines else "; it said nothing"
        detail = {"service": self.service, "exit_status": self.end.exit_status, "signal": self.end.signal}
        return JobError(
            message=f"{self.service} {how(self.end)} during this job{last}",
            retryable=True,
            detail={**{k: v for k, v in detail.items() if v not in (None, "")}, "last_words": list(self.end.lines)},
        )

    def crash(self, worker_id: str) -> Crash | None:
        """What counts against the job; None where another's may have done it."""
        return Crash(worker_id=worker_id, service=self.service, how=how_in_short(self.end)) if self.own else None


class ServiceEnds:
    """What is known of the service of one run, which begins now. `machine` None: nobody leaves anything."""

    def __init__(self, machine: Path | None, service: str, gpu: int) -> None:
        self._machine = machine
        self._service = service
        # A service has one program a slot, or one for all slots.
        self._programs = {f"{service}-gpu{gpu}": True, service: False}
        self._since_ms = int(time.time() * 1000)

    @property
    def told(self) -> bool:
        """Whether anybody here would leave word of an end."""
        return self._machine is not None and (self._machine / exit_files.FOLDER).is_dir()

    def found(self) -> ServiceEnd | None:
        """The end that came since; None: there was none, as far as anybody told."""
        if self._machine is None:
            return None
        for program, own in self._programs.items():
            asked = exit_files.read_asked(self._machine, program)
            if asked is not None and asked.at_ms >= self._since_ms:
                word = asked.why or "it was asked to"
                return ServiceEnd(service=program, own=own, end=ProgramEnd(at_ms=asked.at_ms), asked=word)
            end = exit_files.read(self._machine, program)
            if end is not None and end.at_ms >= self._since_ms:
                return ServiceEnd(service=self._service, own=own, end=end)
        return None

    async def within(self, seconds: float) -> ServiceEnd | None:
        """As `found`, given the agent so long to tell of it."""
        deadline = time.monotonic() + seconds
        while True:
            end = self.found()
            if end is not None or not self.told or time.monotonic() >= deadline:
                return end
            await asyncio.sleep(LOOK_S / 4)

    async def wait(self) -> ServiceEnd:
        """Until there is one; the first look comes when that time has passed: the run has only begun."""
        while True:
            await asyncio.sleep(LOOK_S)
            if (end := self.found()) is not None:
                return end
