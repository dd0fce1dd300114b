"""Ends of programs that nobody asked for, as supervisord tells them: what flapping is judged by.

Source: http://supervisord.org/events.html#event-types. A stop that was asked for goes by STOPPING to STOPPED, and
FATAL comes after a BACKOFF that was counted.
"""

from __future__ import annotations

from emp_orch.machine.listener import SupervisorEvent

KEPT = 8


def is_unasked_end(event: SupervisorEvent, *, once: bool) -> bool:
    """Whether `event` tells of one. A step that is to end (`once`) may do so with a good exit status."""
    match event.name:
        case "PROCESS_STATE_BACKOFF":
            return True
        case "PROCESS_STATE_EXITED":
            return not (once and event.fields.get("expected") == "1")
    return False


def with_end(ends_ms: tuple[int, ...], now_ms: int) -> tuple[int, ...]:
    """The last few ends, newest last."""
    return (*ends_ms, now_ms)[-KEPT:]
