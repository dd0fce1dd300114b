"""A command run in a machine: what to execute, with which environment.

In a container `docker exec` runs it, in what the container was made with. A machine of processes is no place of its
own: the command is a process of this host, in the machine's folder, with what its programs are started with.
Neither is given a secret by us: what a program needs and a person who looks around does not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import assert_never

import msgspec
from msgspec import Struct

from emp_orch import marks
from emp_orch import settings as settings_files
from emp_orch.control.status.location import InContainer, Location, OnHost
from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import Machine
from emp_orch.layout import Layout
from emp_orch.urls import passwords_of, without_login

# Of whoever calls, not of who applied.
_OURS = ("TERM", "COLORTERM", "LANG", "LC_ALL", "COLUMNS", "LINES")
_URLS = ("HUB_REDIS_URL", "REDIS_URL")
# Where secrets lie, what is for the program itself, and whose it is: what a visitor starts is not the fleet's.
_NOT_GIVEN = frozenset({"EMP_SECRETS", "EMP_API", "HUB_REDIS_URL_FILE", "EMP_STARTED_FD", marks.MARK, marks.FOLDER})
# A shorter one might be found in anything.
_TELLING = 6


class ExecCall(Struct, frozen=True, kw_only=True):
    """What is to be executed: `argv[0]` is looked for on PATH of `env`. `cwd` None: wherever we are."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path | None = None


def exec_call(layout: Layout, location: Location, command: tuple[str, ...], *, terminal: bool) -> ExecCall:
    """How to run `command` where the machine is. Raises EmpError."""
    match location:
        case OnHost():
            env = _environment(location, layout)
            return ExecCall(argv=command, env=env, cwd=location.home)
        case InContainer():
            from emp_orch.runtimes.compose import command_line  # the Docker SDK takes its time to import

            engine = location.engine.host
            set_up = [w for k, v in _plain(location.machine).items() for w in ("--env", f"{k}={v}")]
            options = ["--interactive", *(["--tty"] if terminal else []), *set_up]
            argv = (*command_line.command(engine), "exec", *options, location.container_id, *command)
            return ExecCall(argv=argv, env=command_line.environment(engine))
        case _:
            assert_never(location)


def _plain(machine: Machine | None) -> dict[str, str]:
    """What emp.yaml gives every program of the machine, without the secrets; the container's own may be older."""
    if machine is None:
        return {}
    values = {name: value for name, value in machine.env.items() if isinstance(value, str)}
    return {"NUM_GPUS": str(machine.num_gpus), **values}


def _environment(location: OnHost, layout: Layout) -> dict[str, str]:
    """What the machine's supervisord hands to programs, without secrets, with the caller's terminal."""
    try:
        raw = Path(f"/proc/{location.pid}/environ").read_bytes()
    except OSError as e:
        raise EmpError(
            f"cannot read the environment of the machine's supervisord (pid {location.pid}): {e.strerror}",
            hint="run as the user who applied this fleet",
        ) from e
    inherited = dict(v.split("=", 1) for v in os.fsdecode(raw).split("\0") if "=" in v)
    ours = {name: os.environ[name] for name in _OURS if name in os.environ}
    names, values = _secrets(layout)
    return {
        **without_secrets(inherited, names=names, values=values),
        **ours,
        **_plain(location.machine),
        **_json(location.home / "env.json"),
    }


def without_secrets(
    environment: Mapping[str, str], *, names: Collection[str], values: Collection[str]
) -> dict[str, str]:
    """`environment` without the variables `names`, and without any that holds one of `values`; the URL of Redis stays,
    without its password.
    """
    bare = {k: without_login(v) if k in _URLS else v for k, v in environment.items() if k not in _NOT_GIVEN}
    told = [v for v in values if len(v) >= _TELLING]
    return {k: v for k, v in bare.items() if k not in names and v not in values and not any(t in v for t in told)}


def _secrets(layout: Layout) -> tuple[frozenset[str], frozenset[str]]:
    """The environment variables that hold secrets of this fleet where it was applied, and all secret values."""
    settings = settings_files.load(layout)
    kept = _json(layout.secrets)
    urls = (settings.redis_url, settings.machine_redis_url, settings.container_redis_url)
    passwords = [p for url in urls for p in passwords_of(url)]
    values = {*kept.values(), *passwords, settings.api.token or "", settings.monitor.token or ""}
    names = {ref.removeprefix("env:") for ref in kept if ref.startswith("env:")}
    return frozenset(names), frozenset(values - {""})


def _json(path: Path) -> dict[str, str]:
    """A flat JSON object of strings; empty without such a file. Raises EmpError for one that is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise EmpError(f"cannot read {path}: {e.strerror}", hint="run as the user who applied this fleet") from e
    except msgspec.MsgspecError as e:
        raise EmpError(f"{path} is damaged: {e}", hint="run `emp apply` again") from e
