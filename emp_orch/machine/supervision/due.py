"""When supervisord's loop has something to do next that no file descriptor tells."""

from __future__ import annotations

import time
from typing import Any

from supervisor.dispatchers import EventListenerStates
from supervisor.states import ProcessStates, SupervisorStates

# supervisord asks for "later than", with a clock of microseconds.
_LATER_S = 0.001


def seconds_until_due(supervisord: Any, others_s: float) -> float:
    """Until a program has lived long enough to be called running, may be started anew or must be killed; until an
    event or an answer can be told; or `others_s`, whichever is first. 0: now.
    """
    if _has_stopped_group(supervisord):
        return 0.0
    now = time.time()
    due = [others_s]
    for group in supervisord.process_groups.values():
        if _can_tell(group):
            return 0.0
        due += [at - now for process in group.processes.values() if (at := _due(process)) is not None]
    for channel in supervisord.options.get_socket_map().values():
        # supervisor/http.py, deferring_http_channel: an answer that is not there yet is asked for again.
        if delay_s := getattr(channel, "delay", 0):
            due.append(channel.last_writable_check + float(delay_s) - now)
    return max(0.0, min(due) + _LATER_S)


def _has_stopped_group(supervisord: Any) -> bool:
    """While it ends: one group a turn, the next as soon as this one has stopped."""
    groups = supervisord.stop_groups if supervisord.options.mood < SupervisorStates.RUNNING else None
    return groups is not None and len(groups) > 0 and not groups[-1].get_unstopped_processes()


def _can_tell(group: Any) -> bool:
    """Whether an event waits for a listener that waits for one."""
    return bool(getattr(group, "event_buffer", None)) and any(
        p.state == ProcessStates.RUNNING and p.listener_state == EventListenerStates.READY
        for p in group.processes.values()
    )


def _due(process: Any) -> float | None:
    """When its state may change by the clock alone."""
    match process.state:
        case ProcessStates.STARTING:
            return float(process.laststart + process.config.startsecs)
        case ProcessStates.BACKOFF | ProcessStates.STOPPING:
            return float(process.delay)
        case ProcessStates.STOPPED if process.config.autostart and not process.laststart:
            return 0.0
    return None
