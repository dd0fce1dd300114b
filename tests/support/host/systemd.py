"""A systemd of its own as PID 1 of a namespace on this host: a host that is booted, crashes, and is booted again.

Its file system is this host's, read only, but for one folder, /etc, /run and /proc. It has none of this host's units,
which would tidy up this host's files: only those in its own /etc, a folder that outlives it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from support.stack.stack import until

SYSTEMD = "/usr/lib/systemd/systemd"
# Argument: a name for cgroups of its own, which can be taken away whole.
_ASIDE = r"""
for mounted in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
  [ "${mounted##*/}" = memory ] && continue  # where our limit is: nothing here is to leave it
  { mkdir "$mounted/$1" && echo $$ > "$mounted/$1/cgroup.procs"; } 2>/dev/null || true
done
shift
exec "$@"
"""
# Arguments: the folder that can be written, in which the root is put together and etc/ is.
_BOOT = r"""
set -e
root=$1/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$root"
for top in /*; do
  case $top in
    /proc|/run|/etc|/lost+found) ;;
    /dev|/sys) mkdir "$root$top"; mount --rbind "$top" "$root$top" ;;
    *) if [ -L "$top" ]; then cp -P "$top" "$root$top"
       elif [ -d "$top" ]; then
         mkdir "$root$top"
         mount --bind "$top" "$root$top"
         mount -o remount,bind,ro "$root$top"
       fi ;;
  esac
done
# systemd makes folders and links beside the hierarchies of cgroups, and mounts their tmpfs read only: not this host's.
if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
  mkdir "$root/.cgroup"
  mount -t tmpfs -o mode=755 tmpfs "$root/.cgroup"
  for hierarchy in /sys/fs/cgroup/*/; do
    mountpoint -q "$hierarchy" || continue
    name=$(basename "$hierarchy")
    mkdir "$root/.cgroup/$name"
    mount --bind "$hierarchy" "$root/.cgroup/$name"
  done
  mount --rbind "$root/.cgroup" "$root/sys/fs/cgroup"
fi
mkdir "$root/proc" "$root/run" "$root/etc" "$root/.old"
mount --bind "$1/etc" "$root/etc"
mount --bind "$1" "$root$1"
cd "$root"
pivot_root . .old
cd /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
umount -l /.old
export container=unshare SYSTEMD_UNIT_PATH=/etc/systemd/system
exec /usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
"""
_ETC = ("passwd", "group", "ld.so.cache", "ld.so.conf", "hosts", "nsswitch.conf")
# What systemd would begin a host with; here nothing but what a test enables is to start.
_NOTHING = "[Unit]\nDescription=nothing\nDefaultDependencies=no\n"


class Host:
    """Nothing runs until `boot`; `crash` ends it as a power cut does."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or not Path(SYSTEMD).exists():
            pytest.skip("takes root, and the package systemd")
        self._folder, self._etc, self._log = folder, folder / "etc", folder / "systemd.log"
        units = self._etc / "systemd" / "system"
        units.mkdir(parents=True)
        (folder / "root").mkdir()
        for name in _ETC:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"/etc/{name}", self._etc / name)
        (self._etc / "machine-id").write_text("0123456789abcdef" * 2 + "\n")
        for name in ("sysinit", "basic"):
            (units / f"{name}.target").write_text(_NOTHING)
        (units / "service.d").mkdir()
        (units / "service.d" / "log.conf").write_text(
            f"[Service]\nStandardOutput=append:{folder}/services.log\nStandardError=append:{folder}/services.log\n"
        )
        (units / "multi-user.target").write_text("[Unit]\nDescription=up\n")
        self._unshare: subprocess.Popen[bytes] | None = None
        self._cgroup = ""

    @property
    def log(self) -> str:
        """What systemd and the services have said."""
        logs = (self._log, self._folder / "services.log")
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def boot(self) -> None:
        self._cgroup = f"emp-test-{os.getpid()}-{time.monotonic_ns()}"
        kinds = ("--pid", "--mount", "--uts", "--ipc")
        with self._log.open("ab") as log:
            self._unshare = subprocess.Popen(
                [
                    *("sh", "-c", _ASIDE, "aside", self._cgroup),
                    *("unshare", *kinds, "--fork", "--kill-child", "sh", "-c", _BOOT, "boot", self._folder),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until("systemd is up", lambda: self.systemctl("is-system-running") == "running", shown=lambda: self.log)

    def crash(self) -> None:
        if self._unshare is not None:
            self._unshare.kill()
            self._unshare.wait()
            until("all of it has ended", lambda: not self._first())
            self._unshare = None
            for mounted in Path("/proc/mounts").read_text().splitlines():
                _, where, kind, *_ = mounted.split()
                if kind.startswith("cgroup"):
                    until("its cgroups are gone", partial(_removed, Path(where) / self._cgroup))

    def argv(self, *words: str) -> list[str]:
        """`words` as a command within it."""
        return ["nsenter", "--target", self._first() or "0", "--pid", "--mount", "--ipc", "--uts", *words]

    def systemctl(self, *words: str) -> str:
        """What `systemctl` prints."""
        if not self._first():
            return ""
        return subprocess.run(
            self.argv("systemctl", *words), capture_output=True, text=True, check=False
        ).stdout.strip()

    def _first(self) -> str:
        """The pid of its PID 1, as this host counts; empty when there is none."""
        if self._unshare is None:
            return ""
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        with contextlib.suppress(OSError):
            for pid in children.read_text().split():
                if Path(f"/proc/{pid}/exe").resolve() == Path(SYSTEMD).resolve():
                    return pid
        return ""


def _removed(cgroup: Path) -> bool:
    """Whether there is nothing of it any more. A cgroup is free a moment after its last process."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not cgroup.exists()
