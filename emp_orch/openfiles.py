"""How many files a process may open: what emp's daemons need, and that they take what they may."""

from __future__ import annotations

import resource
from contextlib import suppress

from emp_orch.errors import EmpError

# supervisord's own least (its option minfds), which it does not start below; the API's streams and Redis need as many.
NEEDED = 1024
# Programs that walk over all descriptors they might have take minutes over a thousand million of them.
ENOUGH = 1 << 20


def refuse_too_few() -> None:
    """Raise EmpError where this user's processes may never open as many files as the daemons need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= NEEDED:
        return
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # root may
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], NEEDED))
        return
    raise EmpError(
        f"processes may open {hard} files here (`ulimit -Hn`); emp's daemons need {NEEDED}",
        hint="raise the hard limit: nofile in /etc/security/limits.conf, LimitNOFILE= of a systemd unit, "
        "--ulimit nofile= of a container",
    )


def raise_soft() -> None:
    """The soft limit to the hard one, for this process and what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
