"""What the operating system refused, in words: which file, why, and the way out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from emp_orch.errors import EmpError, Unreachable
from emp_orch.host.users import other_owner

_HINTS = {
    errno.ENOSPC: "make room on that disk; `emp doctor` says how much is free",
    errno.EDQUOT: "make room: this user's quota is used up",
    errno.EROFS: "that file system is mounted read-only: choose a folder elsewhere, or mount it to be written",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "this host has no more open files to give (sysctl fs.file-max)",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or free some memory",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EIO: "the disk answers with errors: look into the kernel's log (dmesg)",
}
_REFUSED = (errno.EACCES, errno.EPERM)


def refusal(error: OSError) -> EmpError:
    """Our error for one that nothing closer to it could explain."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    why = error.strerror or str(error) or type(error).__name__
    said = f"{path}: {why}" if path is not None else why
    if error.errno in _REFUSED and path is not None:
        owner = other_owner(path)
        if owner:
            return EmpError(f"{said}: it is {owner}'s", hint=f"run emp as {owner}")
        return EmpError(said, hint="check its permissions, and those of the folders above")
    if isinstance(error, ConnectionError | TimeoutError):
        return Unreachable(said, hint="`emp doctor` says what does not answer")
    return EmpError(said, hint=_HINTS.get(error.errno or 0, "EMP_DEBUG=1 shows what was tried"))
