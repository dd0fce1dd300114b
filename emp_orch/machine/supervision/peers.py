"""Who may speak at supervisord's socket where services are kept apart: none of what it started, save the agent.

Landlock does not keep a service from a socket's path, and its user is ours. Source: unix(7), SO_PEERCRED; supervisor/
medusa/http_server.py (handle_accept takes what is no pair for nobody there).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from supervisor.http import supervisor_af_unix_http_server

from emp_orch.lifemark import stat_fields

_CREDENTIALS = struct.Struct("3i")
# Of stat_fields: the parent's pid.
_PPID = 1
_DEEPEST = 4_096


def install(agent: Callable[[], int], logger: Any) -> None:
    """From now on; `agent` tells the agent's pid."""
    accept = supervisor_af_unix_http_server.accept

    def accept_ours(server: Any) -> Any:
        pair = accept(server)
        if pair is None:
            return None
        connection, _ = pair
        pid = _peer(connection)
        if may_speak(pid, below=os.getpid(), agent=agent()):
            return pair
        connection.close()
        logger.warn(f"emp: a program of this machine (pid {pid}) was refused at supervisor.sock")
        return None

    supervisor_af_unix_http_server.accept = accept_ours


def _peer(connection: socket.socket) -> int:
    """The process that connected, or 0 where it has none that we see."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid


def may_speak(pid: int, *, below: int, agent: int) -> bool:
    """Whether `pid` lives, and is not a process below `below`, or is `agent`. What loses its parent stays below: its
    supervisord is a subreaper.
    """
    if agent and pid == agent:
        return True
    for _ in range(_DEEPEST):
        if pid == below:
            return False
        fields = stat_fields(pid) if pid > 0 else None
        if fields is None:
            return False
        pid = int(fields[_PPID])
        if pid in (0, 1):  # who came in from outside has no parent here
            return pid != below
    return False
