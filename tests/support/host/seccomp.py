"""A kernel that refuses some system calls, for one process and all that it begins. Source: seccomp(2), bpf filters."""

from __future__ import annotations

import ctypes
import errno

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_BETWEEN, _RETURN = 0x20, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JGE|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
LANDLOCK = (444, 446)


class _Step(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("true", ctypes.c_uint8),
        ("false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(_Step)))


def refuse(first: int, last: int, code: int = errno.ENOSYS) -> None:
    """From now on the calls of these numbers answer `code`, here and in all that we start."""
    steps = (_Step * 5)(
        _Step(_LOAD, 0, 0, 0),  # the number of the call
        _Step(_JUMP_IF_BETWEEN, 0, 2, first),
        _Step(_JUMP_IF_BETWEEN, 1, 0, last + 1),
        _Step(_RETURN, 0, 0, _ERRNO | code),
        _Step(_RETURN, 0, 0, _ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(5, steps)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "no seccomp filter")
