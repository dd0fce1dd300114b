"""What an engine says of a machine's container, and that in words: for drift, status, explain and the page alike."""

from __future__ import annotations

from emp_orch.fleet.drift.exits import lasted
from emp_orch.fleet.model.observed import ContainerState
from emp_orch.units import show_bytes

# So many ends of its own within the window are no accident: the engine starts it in vain.
LOOP_ENDS = 3
LOOP_MS = 120_000
SIGKILLED = 137


RUNNING, PAUSED, RESTARTING = "running", "paused", "restarting"


def is_looping(state: ContainerState) -> bool:
    """Whether it ends again and again, each time by itself, and the engine starts it in vain."""
    if state.word not in (RUNNING, RESTARTING) or state.last is None:
        return False
    if state.word == RESTARTING and len(state.ends) < 2:
        # The engine has forgotten the others, or there were none.
        return state.restarts >= LOOP_ENDS
    lately = [e for e in state.ends if state.last.at_ms - e.at_ms <= LOOP_MS]
    return len(lately) >= LOOP_ENDS


def in_short(state: ContainerState) -> str:
    """For a column: `restarting (exit 1)`, `paused`."""
    ended = state.word in (RESTARTING, "exited", "dead") and state.last is not None
    code = state.last.exit_code if ended and state.last is not None else None
    why = "out of memory" if ended and state.out_of_memory else f"exit {code}" if code is not None else ""
    return f"{state.word} ({why})" if why else state.word


def looping(state: ContainerState) -> str:
    """Why it loops, in one line."""
    last_ms = state.last.at_ms if state.last else 0
    lately = [e for e in state.ends if last_ms - e.at_ms <= LOOP_MS]
    times = f"{len(lately)} times within {lasted(LOOP_MS)}" if len(lately) >= LOOP_ENDS else f"{state.restarts} times"
    return f"its container {state.name} ended by itself {times}: it {_how(state)}{_words(state)}"


def told(state: ContainerState) -> str:
    """What its engine says of a container that is not simply running; empty when that is all it says."""
    match state.word:
        case "running" if state.last is not None and state.restarts:
            return f"its container {state.name} was started again by its engine after it {_how(state)}{_words(state)}"
        case "running":
            return f"its engine calls its container {state.name} unhealthy" if state.unhealthy else ""
        case "restarting":
            return f"its container {state.name} {_how(state)}; its engine starts it again{_words(state)}"
        case "exited":
            return f"its container {state.name} {_how(state)}{_words(state)}"
        case word:
            return f"its container {state.name} is {word}{f': {state.error}' if state.error else ''}"


def _how(state: ContainerState) -> str:
    code = state.last.exit_code if state.last is not None else None
    after = f", {lasted(state.lived_ms)} after its start" if state.lived_ms else ""
    if state.out_of_memory:
        return f"ran out of memory ({_limit(state)}{f'; exit {code}' if code is not None else ''}){after}"
    if state.error:
        return f"could not be started: {state.error}"
    if code is None:
        return f"ended{after}"
    signal = " (SIGKILL: somebody killed it, or memory ran out)" if code == SIGKILLED else ""
    return f"ended with exit {code}{signal}{after}"


def _limit(state: ContainerState) -> str:
    """The kernel kills a process of a limited container when all that it may have is used."""
    if not state.memory_limit:
        return "it has no limits.memory: its host had no more"
    return f"limits.memory is {show_bytes(state.memory_limit)}, and it used that"


def _words(state: ContainerState) -> str:
    return f"; last words: {state.lines[-1]}" if state.lines else "; it said nothing"
