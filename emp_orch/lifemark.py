"""The mark of one process' life that it leaves in a file: pid, start, session, and where these mean something.

The launcher writes one before every program, so this imports nothing but os. procident.py reads and judges them.
Source: proc(5). Linux only.
"""

from __future__ import annotations

import os


def stat_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat after the name, so state first; None when there is no such process, or it is hidden.

    Bytes: a process' name need not be UTF-8, as the kernel cuts it anywhere.
    """
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    return text.rpartition(b")")[2].split()


# Field 22 of the file, counted from its third.
START_TICKS = 19
# Lives of a program whose place in its log is known.
LOG_MARKS = 4


def place() -> str:
    """This kernel's boot and our pid namespace: only within it does a pid with its start time mean one process."""
    if not _place:
        boot = _read("/proc/sys/kernel/random/boot_id").decode().strip()
        _place.append(f"{boot[:13]}.{os.stat('/proc/self/ns/pid').st_ino}")
    return _place[0]


# It stays for a process' life. functools would be one more import.
_place: list[str] = []


def home(folder: str) -> str:
    """Which folder it is, under whatever name: a mark that was copied lies in another one than it says."""
    there = os.stat(folder)
    return f"{there.st_dev}:{there.st_ino}"


def leave(path: str, pid: int, start_ticks: int) -> None:
    """Write the mark of process `pid` to `path`, whole or not at all."""
    _write(path, f"{pid} {start_ticks} {os.getsid(pid)} {place()} {home(os.path.dirname(path) or '.')}\n")


def _write(path: str, mark: str) -> None:
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        try:
            os.write(fd, mark.encode())
        finally:
            os.close(fd)
        # ext4 writes a file to the disk that takes another's place. What goes was the mark of a life that has ended.
        try:  # noqa: SIM105  # contextlib would be one more import
            os.unlink(path)
        except FileNotFoundError:
            pass
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def leave_own(path: str) -> None:
    """Write our own mark to `path`."""
    fields = stat_fields(os.getpid())
    if fields is not None:
        leave(path, os.getpid(), int(fields[START_TICKS]))


def _log_mark(run: str, name: str) -> str:
    """Beside `run`, whose files are identities and nothing else."""
    return os.path.join(os.path.dirname(os.path.abspath(run)), "ends", f"{name}.began")


def leave_log_mark(run: str, name: str, log: str, pid: int) -> None:
    """Note where in its log the life of `pid` begins: the log's inode and size. Little is lost where that fails."""
    path = _log_mark(run, name)
    try:
        there = os.stat(log)
        _write(path, "\n".join([f"{pid} {there.st_ino} {there.st_size}", *_earlier(path)]) + "\n")
    except OSError:
        pass  # no log, or a folder of an earlier version: the last words are then cut less sharply


def _earlier(path: str) -> list[str]:
    """Lives before ours, newest first: whoever looks for the last words of one comes when the next has begun."""
    try:
        return _read(path).decode().split("\n")[: LOG_MARKS - 1]
    except (OSError, UnicodeDecodeError):
        return []


def log_marks_of(run: str, name: str) -> list[tuple[int, int, int]]:
    """What leave_log_mark wrote for the last lives, newest first. Raises OSError or ValueError."""
    lines = _read(_log_mark(run, name)).decode().splitlines()
    marks = [tuple(map(int, line.split())) for line in lines[:LOG_MARKS] if line]
    if not marks or any(len(mark) != 3 for mark in marks):
        raise ValueError(f"{name}: no marks of its lives")
    return [(pid, inode, size) for pid, inode, size in marks]


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
