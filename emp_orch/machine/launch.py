"""The launcher: what supervisord starts for every program; it becomes the program.

`python -m emp_orch.machine.launch NAME [--cwd D] [--creates P] [--env K=V]… [--secret K=REF]… -- ARGV…`

It leaves the process' identity in `$EMP_RUN_DIR/NAME`, sets the environment, and execs. Arguments are escaped by
render/quoting.py. It runs before every program, and each replacement waits for what it imports: next to nothing,
neither pathlib nor dataclasses.
"""

from __future__ import annotations

import json
import os
import sys

from emp_orch.isolation import FLAGS, led_by
from emp_orch.lifemark import leave_log_mark, leave_own
from emp_orch.render.quoting import unescape

EMP = "@emp"
WORKER = "worker"
NOT_FOUND = 127
CANNOT_RUN = 126


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
        for flag in words:
            if flag == "--":
                break
            self._option(flag, next(words, ""))
        self.argv = list(words)
        if not self.argv:
            raise LaunchError("no command was given after --")

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
            case _:
                raise LaunchError(f"unknown option {flag}")


def _json(path: str | None) -> dict[str, str]:
    """A flat JSON object of strings; empty when there is no such file."""
    if not path or not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        content = json.load(file)
    return {str(k): str(v) for k, v in content.items()}


def environment(launch: Launch) -> dict[str, str]:
    """The program's environment: ours, then what the machine adds (NUM_GPUS), then its own, then its secrets."""
    secrets = _json(os.environ.get("EMP_SECRETS"))
    missing = [f"{name} ({ref})" for name, ref in launch.secrets.items() if ref not in secrets]
    if missing:
        raise LaunchError(f"no value for {', '.join(missing)}: set it where `emp apply` runs, and apply again")
    resolved = {name: secrets[ref] for name, ref in launch.secrets.items()}
    return {**os.environ, **_json(os.environ.get("EMP_ENV_FILE")), **launch.env, **resolved}


def package() -> tuple[str, str]:
    """The worker package in force, and its folder: where the link points now, so that no later switch mixes two."""
    folder = os.path.join(os.environ.get("EMP_MACHINE_DIR", ""), "packages")
    try:
        digest = os.readlink(os.path.join(folder, "current"))
    except OSError:
        return "", ""
    path = os.path.join(folder, digest)
    return (digest, path) if "/" not in digest and os.path.isdir(path) else ("", "")


def from_package(env: dict[str, str]) -> dict[str, str]:
    """`env` for a worker: its modules are the package's, where the machine has one."""
    digest, path = package()
    bare = {name: value for name, value in env.items() if name != "EMP_PACKAGE"}
    if not digest:
        return bare
    return {**led_by(path, bare), "EMP_PACKAGE": digest}


def main() -> None:
    try:
        launch = Launch(sys.argv[1:])
        run = os.environ["EMP_RUN_DIR"]
        leave_own(os.path.join(run, launch.name))
        leave_log_mark(run, launch.name, os.path.join(os.environ.get("EMP_LOG_DIR", ""), f"{launch.name}.log"))
        if launch.cwd is not None:
            _enter(launch.cwd)
        if launch.creates is not None and os.path.exists(launch.creates):
            print(f"{launch.name}: nothing to do, {launch.creates} is there", flush=True)  # noqa: T201
            return
        argv = launch.argv
        env = environment(launch)
        if argv[:1] == [EMP]:
            packed = from_package(env) if argv[1:2] == [WORKER] else {}
            flags, env = (("-P",), packed) if "EMP_PACKAGE" in packed else (FLAGS, packed or env)
            argv = [sys.executable, *flags, "-m", "emp_orch", *argv[1:]]
        _become(argv, env)
    except LaunchError as e:
        sys.exit(_fail(str(e), e.code))
    except (OSError, ValueError) as e:
        sys.exit(_fail(str(e), CANNOT_RUN))


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


def _fail(why: str, code: int) -> int:
    print(f"emp: cannot start {' '.join(sys.argv[1:2])}: {why}", file=sys.stderr, flush=True)  # noqa: T201
    return code


if __name__ == "__main__":
    main()
