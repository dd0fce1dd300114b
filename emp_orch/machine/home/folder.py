"""A machine's folder on the host it runs on: configuration, supervisord's files, identities, state of its agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.machine.apart import SERVICES_FOLDER
from emp_orch.machine.home.box_gpus import supervisord_text
from emp_orch.machine.home.trust import Floor
from emp_orch.runtimes.keys.logins import REDIS_FILE
from emp_orch.settings import write_private
from emp_orch.store.artifacts.api_access import access_file
from emp_orch.store.fleet import configs
from emp_orch.store.fleet.configs import MachineConfig


class AgentState(Struct, frozen=True, kw_only=True):
    """What must outlive a restart of the agent, for one boot of supervisord.

    `announced` are the start-up events already published, so that each is published once a boot. `stopped` are the
    programs that a command stopped. `floor`: the last order. `ends_ms` are unasked ends of programs, by this host's
    clock.
    """

    boot_id: str
    announced: tuple[str, ...] = ()
    last_command: Annotated[str, Meta(pattern=r"^(\d{1,20}-\d{1,20})?$")] = ""
    floor: Floor = Floor()
    stopped: tuple[ProgramName, ...] = ()
    ends_ms: dict[ProgramName, tuple[int, ...]] = {}


@dataclass(frozen=True, slots=True)
class MachineFolder:
    """Paths and files below one machine's folder."""

    root: Path

    @property
    def run(self) -> Path:
        """One identity file a program, written by the launcher."""
        return self.root / "run"

    @property
    def services(self) -> Path:
        """Where services are at home: `root` itself, unless the machine's image has another folder for them."""
        return Path(os.environ.get(SERVICES_FOLDER) or self.root)

    @property
    def data(self) -> Path:
        return self.services / "data"

    @property
    def supervisord_conf(self) -> Path:
        return self.root / "supervisord.conf"

    @property
    def environment(self) -> Path:
        """What every program started from now on gets beside its own: NUM_GPUS."""
        return self.root / "env.json"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def redis_url(self) -> Path:
        """The way to Redis with the login, 0600, for emp's own programs; where HUB_REDIS_URL_FILE names no other."""
        return self.root / REDIS_FILE

    @property
    def command_key(self) -> Path:
        """The key that the machine knows its commands by (trust.py), 0600. EMP_ORDERS names another file."""
        return Path(os.environ.get("EMP_ORDERS") or self.root / "orders.json")

    @property
    def health(self) -> Path:
        """The port of the agent's health server, for the container's health check."""
        return self.root / "health"

    @property
    def warmups(self) -> Path:
        """Workflows that are run after a start of a service."""
        return self.root / "warmup"

    @property
    def packages(self) -> Path:
        """Worker packages: package/disk."""
        return self.root / "packages"

    @property
    def api_access(self) -> Path:
        """How the API is reached (store/artifacts/api_access), 0600, by the runtime. EMP_API names another file."""
        return access_file(self.root)

    def read_config(self) -> MachineConfig | None:
        """The last configuration this machine was given; None before the first."""
        path = self.root / "config.json"
        try:
            return configs.decode(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None

    def write_files(self, config: MachineConfig) -> None:
        """Write what supervisord and the launcher read. Raises EmpError."""
        _write(self.supervisord_conf, supervisord_text(config, os.environ).encode())
        _write(self.environment, msgspec.json.encode({"NUM_GPUS": str(config.machine.num_gpus)}))
        self._write_warmups(config.machine.warmups)

    def _write_warmups(self, warmups: Mapping[str, str]) -> None:
        """The workflows that workers run after a start of their services; those of former configurations go."""
        for name, text in warmups.items():
            path = self.root / name
            if path.parent != self.warmups:
                raise EmpError(f"{name!r} is no file of {self.warmups}", hint="apply the emp.yaml again")
            try:
                self.warmups.mkdir(exist_ok=True)
            except OSError as e:
                raise EmpError(f"cannot make {self.warmups}: {e.strerror}", hint="check who owns the folder") from e
            _write(path, text.encode())
        for old in self.warmups.glob("*.json"):
            if f"{self.warmups.name}/{old.name}" not in warmups:
                old.unlink(missing_ok=True)

    def keep_config(self, config: MachineConfig) -> None:
        """Keep `config` as the one in force: only once supervisord follows it. Raises EmpError."""
        _write(self.root / "config.json", configs.encode(config))

    def keep_redis_url(self, url: str) -> None:
        """Raises EmpError."""
        _write(self.redis_url, f"{url}\n".encode())

    def write_health_port(self, port: int) -> None:
        """Leave the port that the agent answers on. Raises EmpError."""
        _write(self.health, str(port).encode())

    def read_state(self, boot_id: str) -> AgentState:
        """The agent's state if it is of this boot, else a new one that keeps the floor. Of the boot "": only that."""
        try:
            state = msgspec.json.decode((self.root / "agent.json").read_bytes(), type=AgentState)
        except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            return AgentState(boot_id=boot_id)
        return state if state.boot_id == boot_id else AgentState(boot_id=boot_id, floor=state.floor)

    def write_state(self, state: AgentState) -> None:
        """Keep `state`. Raises EmpError."""
        _write(self.root / "agent.json", msgspec.json.encode(state))


def _write(path: Path, content: bytes) -> None:
    try:
        write_private(path, content)
    except OSError as e:
        raise EmpError(
            f"cannot write {path}: {e.strerror}", hint="check the free space, and who owns the folder"
        ) from e


def from_environment() -> MachineFolder:
    """The folder of the machine this process belongs to, as `emp machine` set it."""
    try:
        return MachineFolder(Path(os.environ["EMP_MACHINE_DIR"]))
    except KeyError:
        raise EmpError("EMP_MACHINE_DIR is not set", hint="`emp machine` starts this; it is not run by hand") from None


def log_folders() -> frozenset[Path]:
    """Where the machine that this process belongs to has its logs: its programs', and supervisord's own."""
    own, programs = os.environ.get("EMP_MACHINE_LOG"), os.environ.get("EMP_LOG_DIR")
    return frozenset([*([Path(own).parent] if own else []), *([Path(programs)] if programs else [])])
