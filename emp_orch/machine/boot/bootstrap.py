"""`emp machine ID`: fetch the configuration, prepare the folder, become supervisord.

The same entrypoint starts a machine on a host, in a container and on a box that joined by itself. With Redis away
it starts from the configuration on disk. A machine that joins by itself asks the API first (join.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from emp_orch import logmodes, marks
from emp_orch.errors import EmpError
from emp_orch.isolation import python
from emp_orch.machine import apart
from emp_orch.machine.boot import moved
from emp_orch.machine.boot.join import JOINED, Membership
from emp_orch.machine.boot.redis_url import given_url
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.home.redis_socket import url_of
from emp_orch.machine.home.trust import Trust, read_key
from emp_orch.procident import alive, become, recorded
from emp_orch.render.quoting import in_double_quotes
from emp_orch.runtimes.keys.logins import URL_FILE
from emp_orch.runtimes.process.stop import end_left
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys
from emp_orch.urls import without_login

log = logging.getLogger("machine")

_OF_THE_DOOR = ("EMP_JOIN_URL", "EMP_JOIN_TOKEN", "EMP_JOIN_TOKEN_FILE", "EMP_POOL", "EMP_JOIN_AS")


def start(machine_id: str, root: Path, logs: Path, membership: Membership, *, invited: bool) -> NoReturn:
    """Replace this process with the machine's supervisord. Returns only by raising. `invited`: it was told where the
    API is, or of which pool it is.
    """
    given_url()  # what is wrong with it is said before anything is made
    folder = MachineFolder(root)
    for needed in (folder.root, folder.run, folder.services, folder.data):
        make(needed)
    moved.take_over(folder)
    _make_logs(machine_id, logs)
    offered = asyncio.run(_join(machine_id, folder, membership, invited=invited))
    url = given_url()
    config = asyncio.run(_configuration(machine_id, folder, url, offered))
    folder.write_files(config)
    folder.keep_config(config)
    environment = {
        **os.environ,
        **marks.environment(*mark_of(machine_id, folder.root)),
        **_way_to_redis(folder, url),
        **apart.hidden(os.environ, folder=str(folder.root), logs=str(logs)),
        "MACHINE_ID": machine_id,
        "NUM_GPUS": str(config.machine.num_gpus),
        "EMP_PYTHON": in_double_quotes(sys.executable),
        "EMP_MACHINE_DIR": str(folder.root),
        "EMP_RUN_DIR": str(folder.run),
        "EMP_ENV_FILE": str(folder.environment),
        "EMP_SECRETS": os.environ.get("EMP_SECRETS") or str(folder.secrets),
        "EMP_LOG_DIR": str(logs / f"machine-{machine_id}"),
        "EMP_MACHINE_LOG": str(own_log(machine_id, logs)),
    }
    argv = python("-m", "supervisor.supervisord", "-c", folder.supervisord_conf.name)
    become(argv, env=environment, cwd=folder.root, identity=folder.run / "supervisord")


def _way_to_redis(folder: MachineFolder, url: str) -> dict[str, str]:
    """For every program the URL without login, and the file that has it with login, for those that are emp's own.

    A REDIS_URL beside another HUB_REDIS_URL is not ours, but the services'.
    """
    bare, other = without_login(url), os.environ.get("REDIS_URL", url)
    theirs = URL_FILE not in os.environ and other != url
    if URL_FILE not in os.environ:
        folder.keep_redis_url(url)
    file = os.environ.get(URL_FILE) or str(folder.redis_url)
    return {"HUB_REDIS_URL": bare, "REDIS_URL": other if theirs else bare, URL_FILE: file}


def mark_of(machine_id: str, home: Path) -> tuple[marks.Mark, Path]:
    """The mark of the machine's supervisord, and its folder: the fleet's that `home` lies in, else `home` itself."""
    root = home.parents[2] if home.parent.parent.name == ".emp" else home
    return marks.of_folder(root).of(machine_id, marks.SUPERVISORD), root


def own_log(machine_id: str, logs: Path) -> Path:
    """Where the machine's supervisord writes: EMP_MACHINE_LOG, else beside the folder of its programs' logs."""
    named = os.environ.get("EMP_MACHINE_LOG")
    return Path(named) if named else logs / f"machine-{machine_id}.log"


def make(folder: Path) -> None:
    """Make `folder`, and those above it; one that is called .emp is its owner's alone. Raises EmpError."""
    private = next((above for above in folder.parents if above.name == ".emp"), None)
    try:
        if private is not None and not private.exists():
            private.parent.mkdir(parents=True, exist_ok=True)
            private.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise EmpError(f"cannot make {folder}: {e.strerror}", hint="check who owns the folder above it") from e


def _make_logs(machine_id: str, logs: Path) -> None:
    """The folders of logs, and supervisord's own log, which it opens before anything of ours is in it."""
    try:
        logs.parent.mkdir(parents=True, exist_ok=True)
        logmodes.make_folder(logs)
        logmodes.make_folder(logs / f"machine-{machine_id}")
    except OSError as e:
        raise EmpError(f"cannot make {e.filename}: {e.strerror}", hint="check who owns the folder above it") from e
    with suppress(OSError):  # supervisord says that it cannot be written, or goes on without
        os.close(logmodes.opener(str(own_log(machine_id, logs)), os.O_WRONLY | os.O_CREAT | os.O_APPEND))


async def _join(
    machine_id: str, folder: MachineFolder, membership: Membership, *, invited: bool
) -> list[MachineConfig]:
    """Learn the way to Redis, where nobody here gave it, into our environment; what the API said it is to run."""
    given = os.environ.get(URL_FILE) or os.environ.get("HUB_REDIS_URL") or os.environ.get("REDIS_URL")
    os.environ.pop(JOINED, None)
    if not invited and (given or membership.kept() is None):
        return []
    answer, fresh = await membership.join()
    # No program needs the token, and what was given otherwise does not count.
    for name in (*_OF_THE_DOOR, URL_FILE, "EMP_SECRETS"):
        os.environ.pop(name, None)
    way = membership.way(answer)
    os.environ |= {"HUB_REDIS_URL": way, "REDIS_URL": way, JOINED: "1"}
    os.environ |= {"EMP_REDIS_PREFIX": answer.prefix}
    _end_former(machine_id, folder)
    if answer.artifacts_url:
        os.environ["EMP_ARTIFACTS_URL"] = answer.artifacts_url
    return [answer.config] if fresh else []


def _end_former(machine_id: str, folder: MachineFolder) -> None:
    """End what a former life left running, when its supervisord is gone: no runtime here does it before us."""

    def lives() -> bool:
        who = recorded(folder.run / "supervisord")
        return who is not None and alive(who)

    if not lives():
        end_left(folder.root, mark_of(machine_id, folder.root)[0], unless=lives)


async def _configuration(
    machine_id: str, folder: MachineFolder, url: str, offered: list[MachineConfig]
) -> MachineConfig:
    """The newest of what Redis says and the API `offered`, else what was there before."""
    kept = folder.read_config()
    config = await _in_redis(machine_id, folder, url, kept)
    config = max((c for c in (config, *offered) if c), key=lambda c: c.generation, default=None)
    config = config or kept
    if config is None:
        raise EmpError(
            f"there is no configuration for machine {machine_id}, neither in Redis nor in {folder.root}",
            hint="apply an emp.yaml that names this machine, and check HUB_REDIS_URL",
        )
    return config


async def _in_redis(
    machine_id: str, folder: MachineFolder, url: str, kept: MachineConfig | None
) -> MachineConfig | None:
    """What Redis has for the machine, if its own fleet wrote that; what it has else is told, and passed over."""
    trust = Trust(lambda: read_key(folder.command_key, machine_id), folder.read_state("").floor)
    if url == url_of(folder.root):  # our agent will listen there, and asks again
        return None
    try:
        async with client.connected(url, owner=client.told_owner()) as r:
            return await trust.config(r, Keys(os.environ.get("EMP_REDIS_PREFIX", "")), kept)
    except EmpError as e:
        log.warning("%s; starting from the configuration on disk", e.message)
        return None
