"""Starts without a copy of supervisord, whose fork costs more than all the rest of a start.

The child is a small shell from the first (vfork), with the program's environment, mark and pipes. It waits for a line
on its standard input, and becomes the program. Meanwhile we leave its identity, and then write the line. So nothing
becomes a program that is not written down; where we are killed before that, the shell reads the end of its input and
ends. What a shell might not hand on as it is, and what cannot start, takes the fork, which says why.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from emp_orch.landlock import within
from emp_orch.machine import apart, launch

SHELL = "/bin/sh"
LAUNCHED = ["-m", launch.MODULE]
_WAITS = 'read -r EMP_GO && exec "$@"'
# A shell corrects it; a program is given it as it is.
_WAITS_IN = 'read -r EMP_GO && PWD=$0 && exec "$@"'
# Names that a shell drops, or has a use of its own for.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHELLS_OWN = frozenset({"IFS", "PPID", "OPTIND", "EMP_GO"})
_AWKWARD = "a\n'\"$HOME\\`\udcff "
_ASKED_S = 5.0


class Gate:
    """One supervisord's. Shut where the host's shell changes what it hands on."""

    def __init__(self) -> None:
        self._open = _hands_on_all()

    def start(self, program: Any, argv: list[str]) -> int | None:
        """Start supervisord's `program`, whose command is `argv`: its pid, or None where it is to be forked."""
        if not self._open or argv[1:3] != LAUNCHED or _asks_for_more(program):
            return None
        try:
            asked = launch.Launch(argv[3:])
            environ = _environment(program)
            words, env = launch.words(asked, environ)
            if asked.creates is not None or not _passes(words, env, launch.workplace(asked, environ) or "."):
                return None
            return _started(program, asked, environ, words, env)
        except (launch.LaunchError, KeyError, OSError, ValueError):
            return None


def _asks_for_more(program: Any) -> bool:
    config = program.config
    return (config.uid, config.directory, config.umask) != (None, None, None) or hasattr(program, "fcgi_sock")


def _environment(program: Any) -> dict[str, str]:
    """What supervisord gives it (process.py, _spawn_as_child)."""
    config = program.config
    url = config.options.serverurl if config.serverurl is None else config.serverurl
    given = {"SUPERVISOR_ENABLED": "1", "SUPERVISOR_PROCESS_NAME": config.name}
    if url:
        given["SUPERVISOR_SERVER_URL"] = url
    if program.group:
        given["SUPERVISOR_GROUP_NAME"] = program.group.config.name
    return {**os.environ, **given, **(config.environment or {})}


def _started(
    program: Any, asked: launch.Launch, environ: Mapping[str, str], words: list[str], env: dict[str, str]
) -> int:
    """Raises OSError where it cannot be started or recorded; nothing of it is left then."""
    pipes = program.pipes

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            _command(words, env),
            env=env,
            cwd=launch.workplace(asked, environ),
            stdin=pipes["child_stdin"],
            stdout=pipes["child_stdout"],
            stderr=pipes["child_stdout"] if program.config.redirect_stderr else pipes["child_stderr"],
            process_group=0,
            restore_signals=False,  # nor does the fork
        )

    child = within(None if asked.own else apart.fence(environ), begin)
    try:
        launch.record(asked.name, child.pid, environ)
    except OSError:
        child.kill()
        child.wait()
        raise
    child.returncode = 0  # supervisord reaps it
    with suppress(BrokenPipeError):  # it was ended meanwhile
        os.write(pipes["stdin"], b"\n")
    return child.pid


def _command(words: list[str], env: Mapping[str, str]) -> list[str]:
    told = env.get("PWD")
    return [SHELL, "-c", _WAITS if told is None else _WAITS_IN, SHELL if told is None else told, *words]


def _passes(words: list[str], env: Mapping[str, str], cwd: str) -> bool:
    """Whether the shell becomes this program as execvpe does, with all of `env`."""
    names = all(_NAME.fullmatch(name) and name not in _SHELLS_OWN for name in env)
    return names and not words[0].startswith("-") and _is_plain(words[0], env, cwd)


def _is_plain(program: str, env: Mapping[str, str], cwd: str) -> bool:
    """Whether it is an executable of the kernel's: a text without a first line the shell would run by itself."""
    folders = [""] if "/" in program else env.get("PATH", "").split(os.pathsep)
    paths = (Path(cwd, folder, program) for folder in folders)
    path = next((p for p in paths if os.access(p, os.X_OK) and p.is_file()), None)
    if path is None:
        return False
    with path.open("rb", buffering=0) as file:
        head = file.read(256)
    if head.startswith(b"#!"):
        interpreter = os.fsdecode(head[2:]).partition("\n")[0].split()
        return bool(interpreter) and os.access(Path(cwd, interpreter[0]), os.X_OK)
    return head.startswith(b"\x7fELF")


def _hands_on_all() -> bool:
    """Ask the host's shell: dash does; bash adds to what it was given."""
    plain = {name: value for name, value in os.environ.items() if _NAME.fullmatch(name) and name not in _SHELLS_OWN}
    awkward = dict.fromkeys(("EMP_AWKWARD", "PS1", "_", "ENV", "MAIL"), _AWKWARD)
    env = {**plain, **awkward, "PWD": "/nonexistent", "OLDPWD": "/nonexistent", "SHLVL": "7"}
    try:
        done = subprocess.run(
            _command(["cat", "/proc/self/environ"], env),
            input=b"\n",
            env=env,
            capture_output=True,
            timeout=_ASKED_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    told = dict(variable.split("=", 1) for variable in os.fsdecode(done.stdout).split("\0") if "=" in variable)
    return told == env and not done.stderr
