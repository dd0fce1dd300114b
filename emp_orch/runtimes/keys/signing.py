"""The fleet's key, `.emp/control/signing.key`, 0600: the control plane seals with what is made from it (seals.py).

It never leaves this folder. A machine is given a key of its own made from it, to forge nobody's commands but
those to itself. A reconciler on another host needs the same file.
"""

from __future__ import annotations

import secrets

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.layout import Layout
from emp_orch.procident import locked
from emp_orch.seals import KEY_BYTES, NEVER, CommandKey, Seal, Stamp
from emp_orch.settings import write_private


class _Kept(Struct, frozen=True, kw_only=True):
    """`key` in hexadecimal."""

    key: str


class SigningKey:
    """The key of the fleet in one folder. Each use looks whether the file is another now: that is a rotation."""

    def __init__(self, layout: Layout, fleet: str) -> None:
        self._path = layout.control / "signing.key"
        self._lock = layout.control / ".signing.lock"
        self._fleet = fleet
        self._seal: Seal | None = None
        self._of: tuple[int, int] | None = None

    def control(self) -> Seal:
        """For what the control plane leaves in Redis for itself. Raises EmpError where the file cannot be had."""
        return self._master().derived(f"control {self._fleet}")

    def known(self) -> Seal | None:
        """As `control`; None where nothing was ever sealed here. Makes nothing."""
        return None if self._stat() is None else self.control()

    def machine(self, machine_id: str) -> Seal:
        """For commands to one machine. Raises EmpError as above."""
        return self._master().derived(f"machine {self._fleet}/{machine_id}")

    def handed(self, machine_id: str, since: Stamp = NEVER) -> CommandKey:
        """What a machine is given. Raises EmpError as above."""
        return CommandKey(fleet=self._fleet, machine=machine_id, key=self.machine(machine_id).hex(), since=since)

    def rotate(self) -> None:
        """Draw the key anew: whatever was sealed so far is void. Raises EmpError as above."""
        try:
            with locked(self._lock):
                self._write(secrets.token_bytes(KEY_BYTES))
        except OSError as e:
            raise self._unreadable(e.strerror or "") from e

    def _master(self) -> Seal:
        now = self._stat()
        if now is None and self._seal is not None:
            return self._seal  # the folder was moved, or removed: who looks at it says so
        if now is None:
            self._make()
            now = self._stat()
        if self._seal is None or now != self._of:
            self._seal, self._of = self._read(), now
        return self._seal

    def _make(self) -> None:
        try:
            with locked(self._lock):
                if self._stat() is None:
                    self._write(secrets.token_bytes(KEY_BYTES))
        except OSError as e:  # the folder was moved, or removed
            raise self._unreadable(e.strerror or "") from e

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._unreadable(e.strerror or "") from e
        return found.st_ino, found.st_mtime_ns

    def _read(self) -> Seal:
        try:
            return Seal(bytes.fromhex(msgspec.json.decode(self._path.read_bytes(), type=_Kept).key))
        except (OSError, ValueError, msgspec.MsgspecError) as e:
            raise self._unreadable((e.strerror or "") if isinstance(e, OSError) else "it is damaged") from None

    def _unreadable(self, why: str) -> EmpError:
        return EmpError(
            f"cannot read {self._path}: {why}",
            hint="where it is damaged remove it, and `emp apply`: all machines get new keys",
        )

    def _write(self, key: bytes) -> None:
        try:
            write_private(self._path, msgspec.json.encode(_Kept(key=key.hex())))
        except OSError as e:
            raise EmpError(f"cannot write {self._path}: {e.strerror}", hint="check who owns the fleet's folder") from e
