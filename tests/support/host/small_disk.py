"""A small file system of its own, that a test fills and empties at once. Mounting takes root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs. `fill` makes it as small as what is in it, so it costs neither time nor memory; `empty` undoes that."""

    def __init__(self, folder: Path, mib: int) -> None:
        self.folder = folder
        self._mib = mib

    def fill(self) -> None:
        """No block is free any more."""
        for _ in range(100):  # somebody may be writing
            there = os.statvfs(self.folder)
            used = (there.f_blocks - there.f_bfree) * there.f_frsize
            if self._remount(f"size={used}").returncode == 0 and not os.statvfs(self.folder).f_bfree:
                return
        raise AssertionError(f"{self.folder} cannot be filled: {self._remount(f'size={used}').stderr}")

    def no_files(self) -> None:
        """No file can be made any more, and none grow."""
        self.fill()
        there = os.statvfs(self.folder)
        done = self._remount(f"size={self._mib}m,nr_inodes={there.f_files - there.f_ffree}")
        assert done.returncode == 0, done.stderr

    def empty(self) -> None:
        """There is room again."""
        done = self._remount(f"rw,size={self._mib}m,nr_inodes=100000")
        assert done.returncode == 0, done.stderr

    def read_only(self) -> None:
        done = self._remount("ro")
        assert done.returncode == 0, done.stderr

    def _remount(self, options: str) -> subprocess.CompletedProcess[str]:
        argv = ["mount", "-o", f"remount,{options}", str(self.folder)]
        return subprocess.run(argv, capture_output=True, text=True)


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[SmallDisk]:
    """Mounted on `folder` meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder], check=True)
    folder.joinpath(".in-use").write_bytes(b"x")  # of size 0 it would have no limit
    try:
        yield SmallDisk(folder, mib)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
