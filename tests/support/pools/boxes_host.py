"""A service that rents out boxes, apart from who asks: boxes_program.py, run by a process that is nobody's of emp.

boxes_host.py serve SOCKET FOLDER COMMAND…, and boxes_host.py ask SOCKET: the program for `provider: command`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_PROGRAM = Path(__file__).with_name("boxes.py")


def serve(address: str, *words: str) -> None:
    """Answer one request after the other, until killed."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            # Who asks may be killed meanwhile: that is theirs.
            with suppress(OSError, ValueError), connection, connection.makefile("rw") as talk:
                asked = json.loads(talk.readline())
                env = {"PATH": os.environ["PATH"], "BOXES_KEY": asked["key"]}
                argv = [sys.executable, str(_PROGRAM), *words]
                done = subprocess.run(
                    argv, input=asked["request"], capture_output=True, text=True, env=env, check=False
                )
                json.dump({"out": done.stdout, "err": done.stderr, "status": done.returncode}, talk)


def ask(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        with connection.makefile("rw") as talk:
            talk.write(json.dumps({"request": sys.stdin.read(), "key": os.environ.get("BOXES_KEY", "")}) + "\n")
            talk.flush()
            said = json.loads(talk.read())
    sys.stderr.write(said["err"])
    sys.stdout.write(said["out"])
    sys.exit(said["status"])


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
