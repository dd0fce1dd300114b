"""Follow a fleet's logs: new lines as they are written, new files as they come."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence

from emp_orch import logmodes
from emp_orch.control.logs.files import log_files, matches
from emp_orch.control.logs.read import Line, Reader, last_lines, merged
from emp_orch.errors import EmpError
from emp_orch.host.inotify import Inotify
from emp_orch.layout import Layout

# Lines that several programs write at the same moment are put in order before they are shown.
SETTLE_S = 0.02


class Logs:
    """The logs of the components `wanted` (none: all but the event stream)."""

    def __init__(self, layout: Layout, wanted: Sequence[str]) -> None:
        self._layout = layout
        self._wanted = wanted
        self._readers: dict[str, Reader] = {}
        self._discover(from_start=False)

    def _discover(self, *, from_start: bool) -> None:
        for file in log_files(self._layout):
            if file.name not in self._readers and matches(file, self._wanted):
                self._readers[file.name] = Reader(file, from_start=from_start)

    def last(self, count: int, *, unfinished: bool) -> Iterator[Line]:
        """The last `count` lines of all together, in time order; see Reader.tail."""
        return last_lines(self._readers.values(), count, unfinished=unfinished)

    def follow(self) -> Iterator[list[Line]]:
        """Batches of lines that come, for ever. Sleeps while nothing is written.

        Raises EmpError when the kernel gives us no watch.
        """
        try:
            with Inotify() as changes:
                while True:
                    self._watch(changes)
                    self._discover(from_start=True)
                    if batch := merged(line for reader in self._readers.values() for line in reader.poll()):
                        yield batch
                    changes.wait()
                    time.sleep(SETTLE_S)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EACCES):
                raise
            raise EmpError(
                f"cannot watch the logs: {e.strerror}",
                hint="raise fs.inotify.max_user_watches and max_user_instances, or leave out -f",
            ) from e

    def _watch(self, changes: Inotify) -> None:
        """The logs folder, and the folder of each machine shown; those that come later when they come."""
        logs = self._layout.logs
        logmodes.make_folder(logs)
        changes.watch(logs)
        for folder in sorted(logs.iterdir()):
            if folder.name.startswith("machine-") and folder.is_dir() and not folder.is_symlink():
                changes.watch(folder)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
