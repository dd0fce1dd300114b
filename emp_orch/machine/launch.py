"""The last steps before a process becomes a program: identity, environment, exec.

`python -m emp_orch.machine.launch NAME [--cwd D] [--creates P] [--env K=V]… [--secret|--inherit K=REF]… -- ARGV…`

It leaves the process' identity in `$EMP_RUN_DIR/NAME`, sets the environment, and execs. Arguments are escaped by
render/quoting.py. Our extension of supervisord takes these steps for a child that it holds (machine/supervision/gate),
or calls `begin` in one that it forked; as a command it serves supervisords that were started before there was one. It
imports next to nothing, neither pathlib nor dataclasses: it runs before every program.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping

from emp_orch.environments import of_daemon
from emp_orch.isolation import FLAGS, led_by
from emp_orch.lifemark import START_TICKS, leave, leave_log_mark, stat_fields
from emp_orch.machine import apart
from emp_orch.render.quoting import unescape

MODULE = "emp_orch.machine.launch"
EMP = "@emp"
# As emp_orch.marks names them.
MARK, FOLDER = "EMP_MARK", "EMP_FLEET_FOLDER"
WORKER, AGENT, SETUP = "worker", "machine-agent", "machine-setup"
# As emp_orch.runtimes.machine_logins names it.
URL_FILE = "HUB_REDIS_URL_FILE"
NOT_FOUND = 127
CANNOT_RUN = 126
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class LaunchError(Exception):
    """Why a program cannot be started; printed where its output goes. `code`: what it exits with."""

    def __init__(self, why: str, code: int = CANNOT_RUN) -> None:
        super().__init__(why)
        self.code = code


class Launch:
    """One parsed command line."""

    def __init__(self, args: list[str]) -> None:
        words = iter([unescape(a) for a in args])
        self.name = next(words, "")
        self.cwd: str | None = None
        self.creates: str | None = None
        self.env: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.inherited: dict[str, str] = {}
        for flag in words:
            if flag == "--":
                break
            self._option(flag, next(words, ""))
        self.argv = list(words)
        if not self.argv:
            raise LaunchError("no command was given after --")
        self.role = self.argv[1] if self.argv[0] == EMP and len(self.argv) > 1 else ""
        # What is emp's itself, not a service's.
        self.own = self.role in (WORKER, AGENT, SETUP)

    def _option(self, flag: str, value: str) -> None:
        name, _, rest = value.partition("=")
        match flag:
            case "--cwd":
                self.cwd = value
            case "--creates":
                self.creates = value
            case "--env":
                self.env[name] = rest
            case "--secret":
                self.secrets[name] = rest
            case "--inherit":
                self.inherited[name] = rest
            case _:
                raise LaunchError(f"unknown option {flag}")


def _json(path: str | None) -> dict[str, str]:
    """A flat JSON object of strings; empty when there is no such file."""
    if not path or not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        content = json.load(file)
    return {str(k): str(v) for k, v in content.items()}


def environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
    """The program's environment: ours, what the machine adds (NUM_GPUS), what it inherits where that is set, its own,
    its secrets, and its mark.
    """
    secrets = _json(environ.get("EMP_SECRETS"))
    missing = [f"{name} ({ref})" for name, ref in launch.secrets.items() if ref not in secrets]
    if missing:
        raise LaunchError(f"no value for {', '.join(missing)}: set it where `emp apply` runs, and apply again")
    resolved = {name: secrets[ref] for name, ref in launch.secrets.items()}
    inherited = {name: secrets[ref] for name, ref in launch.inherited.items() if ref in secrets}
    given = of_daemon(launch.argv[1], environ) if launch.argv[0] == EMP else environ
    found = {**given, **_json(environ.get("EMP_ENV_FILE")), **inherited, **launch.env, **resolved}
    if MARK in environ:
        found[MARK] = f"{environ[MARK].rpartition(':')[0]}:{launch.name}"
        found[FOLDER] = environ.get(FOLDER, "")
    return found


def package(machine: str) -> tuple[str, str]:
    """The worker package in force, and its folder: where the link points now, so that no later switch mixes two."""
    folder = os.path.join(machine, "packages")
    try:
        digest = os.readlink(os.path.join(folder, "current"))
    except OSError:
        return "", ""
    path = os.path.join(folder, digest)
    return (digest, path) if "/" not in digest and os.path.isdir(path) else ("", "")


def from_package(env: dict[str, str]) -> dict[str, str]:
    """`env` for a worker: its modules are the package's, where the machine has one."""
    digest, path = package(env.get("EMP_MACHINE_DIR", ""))
    bare = {name: value for name, value in env.items() if name != "EMP_PACKAGE"}
    if not digest:
        return bare
    return {**led_by(path, bare), "EMP_PACKAGE": digest}


def without(env: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in env.items() if key != name}


def with_login(env: dict[str, str]) -> dict[str, str]:
    """`env` for a worker, which may be of another emp than ours: the way to Redis, with the login that no other program
    is given.
    """
    path = env.get(URL_FILE)
    if not path:
        return env
    try:
        with open(path) as file:
            url = file.read().strip()
    except (OSError, ValueError) as e:
        raise LaunchError(f"cannot read {path}, which {URL_FILE} names: {getattr(e, 'strerror', 'not text')}") from None
    return {**env, "HUB_REDIS_URL": url, "REDIS_URL": url}


def words(launch: Launch, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The program's command line and environment. Raises LaunchError."""
    env, role = environment(launch, environ), launch.role
    if role == WORKER and apart.SERVICES_FOLDER in env:
        env["HOME"] = env["EMP_MACHINE_DIR"]  # services write in the other, where libraries look for settings
    env = with_login(env) if role == WORKER else env if role == AGENT else without(env, URL_FILE)
    if launch.argv[:1] != [EMP]:
        return launch.argv, env
    packed = from_package(env) if role == WORKER else {}
    flags, env = (("-P",), packed) if "EMP_PACKAGE" in packed else (FLAGS, packed or env)
    return [sys.executable, *flags, "-m", "emp_orch", *launch.argv[1:]], env


def workplace(launch: Launch, environ: Mapping[str, str]) -> str | None:
    """Its working directory; None: where we are."""
    return launch.cwd if launch.own else apart.workplace(launch.cwd, environ)


def record(name: str, pid: int, environ: Mapping[str, str]) -> None:
    """Leave the identity of `pid`, which is to become program `name`, and where its life begins in its log."""
    run = environ["EMP_RUN_DIR"]
    fields = stat_fields(pid)
    if fields is not None:
        leave(os.path.join(run, name), pid, int(fields[START_TICKS]))
    leave_log_mark(run, name, os.path.join(environ.get("EMP_LOG_DIR", ""), f"{name}.log"), pid)


def begin(args: list[str], environ: Mapping[str, str]) -> int:
    """Become the program of `args`. Returns only where there is nothing to become: the exit code, once told why."""
    try:
        launch = Launch(args)
        _leave_own(launch.name, environ)
        cwd = workplace(launch, environ)
        if cwd is not None:
            _enter(cwd)
        if launch.creates is not None and os.path.exists(launch.creates):
            _say(1, f"{launch.name}: nothing to do, {launch.creates} is there")
            return 0
        argv, env = words(launch, environ)
        if not launch.own:
            _stand_apart(environ)
        _become(argv, env)
    except LaunchError as e:
        return _fail(args, str(e), e.code)
    except KeyError as e:
        return _fail(args, f"{e.args[0]} is not set", CANNOT_RUN)
    except (OSError, ValueError) as e:
        return _fail(args, str(e), CANNOT_RUN)
    return CANNOT_RUN


def _leave_own(name: str, environ: Mapping[str, str]) -> None:
    """Where the disk takes nothing, it runs without: it is known by its mark. What another life left there goes."""
    try:
        record(name, os.getpid(), environ)
    except OSError as e:
        if e.errno not in _NO_ROOM:
            raise
        path = os.path.join(environ["EMP_RUN_DIR"], name)
        try:  # noqa: SIM105  # contextlib is dear here
            os.unlink(path)
        except OSError:
            pass  # there was none, or nothing can be changed there
        _say(2, f"emp: {name} starts, and leaves no note of it: {path}: {e.strerror}")


def _stand_apart(environ: Mapping[str, str]) -> None:
    fence = apart.fence(environ)
    if fence is not None:
        apart.enter(fence)


def _become(argv: list[str], env: dict[str, str]) -> None:
    program = argv[0]
    try:
        os.execvpe(program, argv, env)  # noqa: S606  # no shell: argv as emp.yaml gives it
    except FileNotFoundError:
        if "/" in program and os.path.exists(program):  # a script
            raise LaunchError(f"{program}: the interpreter in its first line is not there", NOT_FOUND) from None
        looked = "" if "/" in program else f" in PATH ({env.get('PATH', '')})"
        raise LaunchError(f"{program}: not found{looked}", NOT_FOUND) from None
    except PermissionError:
        raise LaunchError(f"{program}: not executable, or this user may not run it", CANNOT_RUN) from None


def _enter(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as e:
        raise LaunchError(f"its working directory {cwd}: {e.strerror}", NOT_FOUND) from e


def _fail(args: list[str], why: str, code: int) -> int:
    _say(2, f"emp: cannot start {' '.join(args[:1])}: {why}")
    return code


def _say(fd: int, line: str) -> None:
    """Not through a stream of Python's: in a forked child those are somebody else's."""
    os.write(fd, f"{line}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    sys.exit(begin(sys.argv[1:], os.environ))
