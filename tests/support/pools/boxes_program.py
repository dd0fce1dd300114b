"""A program of a user's, for `provider: command`: boxes are processes of this host, each with a file that names it.

boxes_program.py FOLDER COMMAND…: what a box runs, in a folder of its own. It imports nothing of emp or of the tests. It
may be killed at any moment: the lock of FOLDER is the box's too, until its file is there.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_BEGIN = 'printf %s $$ > "$1.part" && mv "$1.part" "$1" && shift && exec 9>&- && exec "$@"'


def main() -> None:
    folder, command = Path(sys.argv[1]).absolute(), sys.argv[2:]
    asked = json.load(sys.stdin)
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with (folder / "requests").open("a") as requests:
        requests.write(f"{asked['request']} {asked.get('member', '')}\n")
    refuse_strangers(folder)
    if asked["request"] == "list":
        answer: dict[str, Any] = {"boxes": [shown(path) for path in sorted(folder.glob("*/*.pid"))]}
    elif asked["request"] == "create":
        if (folder / "full").exists():
            sys.exit("no node has a free gpu")
        answer = created(file_of(folder, asked), command, asked["environment"], lock)
    else:
        answer = removed(file_of(folder, asked))
    print(json.dumps(answer))


def refuse_strangers(folder: Path) -> None:
    """A file `key` in FOLDER holds what BOXES_KEY is to be."""
    wanted, given = folder / "key", os.environ.get("BOXES_KEY", "")
    if wanted.exists() and wanted.read_text() != given:
        sys.exit(f"401: {given} is no key")


def file_of(folder: Path, asked: dict[str, Any]) -> Path:
    return folder / str(asked["owner"]) / f"{asked['member']}.pid"


def created(path: Path, command: list[str], environment: dict[str, str], lock: int) -> dict[str, Any]:
    if path.exists() and alive(path):
        return {}
    path.unlink(missing_ok=True)
    home = path.with_suffix("")
    home.mkdir(parents=True, exist_ok=True)
    os.dup2(lock, 9)
    with (home / "console.log").open("ab") as log:
        subprocess.Popen(
            ["sh", "-c", _BEGIN, "sh", path, *command],
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(9,),
            start_new_session=True,
        )
    while not path.exists():
        time.sleep(0.01)
    return {}


def removed(path: Path) -> dict[str, Any]:
    """All boxes of the member, also where something made two."""
    for one in path.parent.glob(f"{path.stem}.*pid"):
        if alive(one):
            os.kill(int(one.read_text()), signal.SIGTERM)
        else:
            one.unlink()
    return {}


def member_of(path: Path) -> str:
    return path.name.partition(".")[0]


def shown(path: Path) -> dict[str, str]:
    state = "running" if alive(path) else "ended"
    return {
        "owner": path.parent.name,
        "member": member_of(path),
        "state": state,
        "ref": path.read_text(),
        "node": "here",
    }


def alive(path: Path) -> bool:
    """Whether the process is there, is this box's, and is no zombie."""
    process = Path("/proc") / path.read_text()
    try:
        ours = f"EMP_JOIN_AS={member_of(path)}".encode() in (process / "environ").read_bytes().split(b"\0")
        return ours and (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    main()
