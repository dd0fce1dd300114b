"""The logs of a supervisord, kept where they belong: what somebody removes is made again, and opened anew.

A file that was removed is written on, and seen by nobody. The kernel tells of removals (inotify), and /proc which of
supervisord's files have no name any more.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from emp_orch import logmodes
from emp_orch.host.inotify import REMOVED, Inotify
from emp_orch.procident import ProcessIdentity, alive, send
from emp_orch.runtimes.last_words import REMOVED_LINE

log = logging.getLogger(__name__)

_DELETED = " (deleted)"
# `rm -r` takes its time, and is not to find new files on its way.
SETTLE_S = 0.3


async def keep_logs(supervisord: ProcessIdentity, folders: Iterable[Path], *, above: Path) -> None:
    """Until cancelled, or `supervisord` has ended: the files in `folders` that it writes are there.

    `above` is what nobody here makes again: the fleet's folder.
    """
    wanted = frozenset(folders)
    try:
        with Inotify(REMOVED) as changes:
            while alive(supervisord):
                _watch(changes, wanted)
                if above.is_dir() and (missing := lost_files(supervisord, wanted)):
                    _make_again(missing, supervisord)
                    continue
                await changes.stirred()
                while await changes.stirred(SETTLE_S):
                    pass
    except OSError as e:
        log.warning("logs that somebody removes are not made again: %s", e.strerror)


def lost_files(supervisord: ProcessIdentity, folders: frozenset[Path]) -> list[Path]:
    """The files that `supervisord` writes in `folders`, and that are not there any more."""
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{supervisord.pid}/fd").iterdir():
            with suppress(OSError):
                name = str(link.readlink())
                if name.endswith(_DELETED) and Path(name.removesuffix(_DELETED)).parent in folders:
                    found.add(Path(name.removesuffix(_DELETED)))
    return sorted(path for path in found if not path.exists())


def _watch(changes: Inotify, folders: Iterable[Path]) -> None:
    """The folders, and what they lie in: a folder that was removed comes back as another."""
    for folder in folders:
        for one in (folder, folder.parent):
            changes.watch(one)


def _make_again(missing: Iterable[Path], supervisord: ProcessIdentity) -> None:
    """Each file with a line that says so. Then supervisord opens its logs anew: all of them must be there."""
    now = datetime.now().astimezone()
    for path in missing:
        for folder in (path.parent.parent, path.parent):  # its machine's, and that of all logs
            logmodes.make_folder(folder)
        with open(path, "a", opener=logmodes.opener) as file:
            file.write(f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d} WARNING {REMOVED_LINE}")
        log.warning("%s was removed, and is made again", path)
    send(supervisord, signal.SIGUSR2)
