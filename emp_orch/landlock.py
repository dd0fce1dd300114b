"""Landlock: a fence of the kernel's that a thread puts around itself, and so around all that it starts from then on.

What stands behind the fence cannot be opened, changed, renamed or made; nor can processes outside it be looked into
(/proc/PID/environ, /proc/PID/mem), or be sent a signal where the kernel is new enough. Nobody takes a fence down. It
needs no rights; it sets no_new_privs. Cheap to import. Sources: landlock(7), include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

# The same numbers on every architecture that Python is built for.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # flag of landlock_create_ruleset: tell the ABI
_PATH_BENEATH = 1  # kind of rule
_PR_SET_NO_NEW_PRIVS = 38

# Of files.
_WRITE_FILE, _READ_FILE = 1 << 1, 1 << 2
_TRUNCATE = 1 << 14  # ABI 3
# Of folders. To list one (1 << 3) and to execute (1 << 0) are left free.
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE = sum(1 << bit for bit in range(6, 13))  # char, dir, reg, sock, fifo, block, sym
_REFER = 1 << 13  # ABI 2: to rename or link from one folder to another; forbidden wherever it is not granted

_SCOPE_SIGNAL = 1 << 1  # ABI 6
# Below it nothing can be renamed between folders inside a fence.
NEEDED_ABI = 2
_TRUNCATE_ABI, _SCOPE_ABI = 3, 6


class Unavailable(Exception):
    """This kernel, or what restricts us already, has no Landlock for us; why, in words."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def abi() -> int:
    """What this kernel knows of it, at least NEEDED_ABI. Raises Unavailable, OSError."""
    found = _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    if found < NEEDED_ABI:
        raise Unavailable(f"kernel {os.uname().release} has Landlock's ABI {found}, and {NEEDED_ABI} is needed")
    return found


class Fence:
    """One to stand inside of: before the paths `hidden`, and all below them. `close` it when nobody enters any more.

    Folders above a hidden path are open as far as what they hold now: what is made in them later is out of reach.
    With `signals` those outside can be sent some. Raises Unavailable, OSError.
    """

    def __init__(self, hidden: Sequence[str], *, signals: bool = False) -> None:
        known = abi()
        self._files = _READ_FILE | _WRITE_FILE | (_TRUNCATE if known >= _TRUNCATE_ABI else 0)
        self._folders = self._files | _REMOVE_DIR | _REMOVE_FILE | _MAKE | _REFER
        asked = _Ruleset(self._folders, 0, 0 if signals or known < _SCOPE_ABI else _SCOPE_SIGNAL)
        # An older kernel knows only the first member.
        size = ctypes.sizeof(asked) if known >= _SCOPE_ABI else ctypes.sizeof(ctypes.c_uint64)
        self._fd = _call(_CREATE_RULESET, ctypes.byref(asked), ctypes.c_size_t(size), ctypes.c_uint32(0))
        try:
            for path in _open("/", frozenset(map(os.path.realpath, hidden))):
                self._allow(path)
        except BaseException:
            self.close()
            raise

    def _allow(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):  # it has gone; or is nothing for us anyway
            return
        try:
            folder = stat.S_ISDIR(os.fstat(fd).st_mode)
            rule = _PathBeneath(self._folders if folder else self._files, fd)
            _call(
                _ADD_RULE, ctypes.c_int(self._fd), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)
            )
        finally:
            os.close(fd)

    def enter(self) -> None:
        """The thread that calls it, and all that it starts, stand inside for good. Raises Unavailable, OSError."""
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")
        _call(_RESTRICT_SELF, ctypes.c_int(self._fd), ctypes.c_uint32(0))

    def close(self) -> None:
        os.close(self._fd)


def why_not() -> str:
    """Why nobody here can be put behind a fence; empty where one can: it is tried, in a thread that ends."""

    def attempt() -> None:
        fence = Fence(())
        try:
            fence.enter()
        finally:
            fence.close()

    try:
        _in_thread(attempt)
    except (Unavailable, OSError) as e:
        return str(e)
    return ""


def within(fence: Fence | None, start: Callable[[], T]) -> T:
    """`start` behind `fence`, and close that: in a thread that ends. We ourselves stay outside; so does what is started
    where there is no fence, or it cannot be entered here. Raises OSError.
    """
    if fence is None:
        return start()

    def begin() -> T:
        with suppress(Unavailable):
            fence.enter()
        return start()

    try:
        return _in_thread(begin)
    finally:
        fence.close()


def _in_thread(work: Callable[[], T]) -> T:
    """What `work` answers or raises; OSError where there is no thread to be had."""
    done: Future[T] = Future()

    def begin() -> None:
        try:
            done.set_result(work())
        except BaseException as e:  # noqa: BLE001  # it is raised where it is waited for
            done.set_exception(e)

    thread = threading.Thread(target=begin, name="fence")
    try:
        thread.start()
    except RuntimeError as e:
        raise OSError(errno.EAGAIN, "no thread can be started") from e
    thread.join()
    return done.result()


def _open(folder: str, hidden: frozenset[str]) -> Iterator[str]:
    """The paths to allow so that all but `hidden` is: as high up as can be."""
    if folder in hidden:
        return
    if not any(path.startswith(folder.rstrip("/") + "/") for path in hidden):
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            # Where a link leads is judged there.
            inside = [e.path for e in entries if not e.is_symlink()]
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return
    for path in inside:
        yield from _open(path, hidden)


def _call(number: int, *words: object) -> int:
    """What the call answers. Raises Unavailable where nobody may make it, else OSError."""
    found: int = _libc.syscall(ctypes.c_long(number), *words)
    if found >= 0:
        return found
    code, kernel = ctypes.get_errno(), f"kernel {os.uname().release}"
    match code:
        case errno.ENOSYS:
            raise Unavailable(f"{kernel} has no Landlock, or a seccomp profile hides it")
        case errno.EOPNOTSUPP:
            raise Unavailable(f"{kernel} was started without Landlock")
        case errno.EPERM:
            raise Unavailable(f"Landlock of {kernel} is not permitted here, perhaps by a seccomp profile")
    raise OSError(code, f"Landlock: {os.strerror(code)}")
