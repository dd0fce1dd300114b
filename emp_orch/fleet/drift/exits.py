"""How a program ended, in words: one form for drift, commands, the page and the history of a job."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import MachineReport, OutOfMemory, ProgramEnd, ProgramReport, ProgramState
from emp_orch.units import show_bytes

# What a log is quoted with: everywhere but beside a form that shows all the lines.
MAX_LINES = 5
MAX_LINE = 200
# Who ends well so soon after the start was meant to: a step, or a command that only starts something else.
AT_ONCE_MS = 10_000

_SIGNALS = {
    "SIGKILL": "somebody killed it, or memory ran out",
    "SIGSEGV": "a crash in native code",
    "SIGABRT": "it gave itself up",
    "SIGBUS": "memory or a full disk",
    "SIGILL": "code for another processor",
}


def how(end: ProgramEnd) -> str:
    """`exited with status 3`, `was ended by SIGSEGV (a crash in native code)`."""
    if end.exit_status is not None:
        return f"exited with status {end.exit_status}"
    if end.signal:
        killed = end.memory is not None and end.signal == "SIGKILL"
        why = out_of_memory(end.memory) if end.memory is not None and killed else _SIGNALS.get(end.signal)
        return f"was ended by {end.signal}{f' ({why})' if why else ''}"
    return "ended, nobody saw how"


def out_of_memory(found: OutOfMemory) -> str:
    """`out of memory: all of limits.memory, 8 GiB, was used`."""
    if not found.limit:
        used = f", of which this machine used {show_bytes(found.used)} at most" if found.used else ""
        return f"out of memory: its host had no more{used}"
    whose = "limits.memory" if found.inside else "the limit of its cgroup"
    return f"out of memory: {whose} is {show_bytes(found.limit)}, and it used {show_bytes(found.used or found.limit)}"


def how_in_short(end: ProgramEnd) -> str:
    """`status 3`, `SIGSEGV`: for a list of ends."""
    if end.memory is not None:
        return "out of memory"
    return f"status {end.exit_status}" if end.exit_status is not None else end.signal or "unknown how"


def told(end: ProgramEnd) -> str:
    """One line: how, how long it lived, the last thing it said. The other lines are `end.lines`."""
    after = f", {lasted(end.lived_ms)} after its start" if end.lived_ms else ""
    words = f"; last words: {end.lines[-1]}" if end.lines else "; it said nothing"
    return f"{how(end)}{after}{words}{advice(end)}"


def advice(end: ProgramEnd) -> str:
    """What emp.yaml may want to say of a program that ended so; empty where an end tells nothing of that."""
    if end.memory is not None and end.signal != "SIGKILL":
        return f"; the kernel had killed a process of this machine: {out_of_memory(end.memory)}"
    if end.left and end.exit_status == 0:
        return f"; it went to the background, and {end.left} ended with it: run it in the foreground"
    if end.left:
        return f"; {end.left}, which it left, ended with it"
    if end.exit_status == 0 and 0 < end.lived_ms < AT_ONCE_MS:
        return "; what is to run to its end is written with scale: once, all else must stay in the foreground"
    return ""


def lasted(ms: int) -> str:
    """A life's length as a person says it: 0.2 s, 12 s, 5 min, 3 h."""
    seconds = ms / 1000
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    for unit, size, below in (("s", 1, 90), ("min", 60, 5_400), ("h", 3_600, 172_800)):
        if seconds < below:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def before(got: ProgramReport) -> str:
    """What a cause says of the former process where the present one is not in order either; empty without one."""
    return f"; before that it {told(got.last_end)}" if got.last_end else ""


def words_of(report: MachineReport | None, program: str | None) -> tuple[str, ...]:
    """The last lines of a program that is in trouble; nothing where one line, or none, tells all: a cause has that."""
    got = report.programs.get(ProgramName(program)) if report is not None and program else None
    if got is None or got.last_end is None or is_well(got):
        return ()
    return got.last_end.lines if len(got.last_end.lines) > 1 else ()


def is_well(got: ProgramReport) -> bool:
    """Whether it runs, as far as its report tells without what emp.yaml asks of it."""
    return got.state is ProgramState.RUNNING and got.healthy is True


# Where the program is not: its last end is why.
GONE = (ProgramState.BACKOFF, ProgramState.FATAL, ProgramState.EXITED)


def why_gone(got: ProgramReport) -> str:
    """Why a program does not run that should, as far as its last end tells; empty where that tells nothing."""
    if got.last_end is None or got.state not in GONE:
        return ""
    return told(got.last_end)
