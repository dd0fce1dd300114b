"""What the control plane's daemons need to know: `.emp/control/settings.json`, 0600, written by `emp apply`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError, UsageError
from emp_orch.host import ownership
from emp_orch.layout import Layout
from emp_orch.roles import Role

# By which a machine on this host is told `Settings.redis_owner`.
REDIS_OWNER = "EMP_REDIS_OWNER"


class Token(Struct, frozen=True, kw_only=True):
    """A named token of the API: `values` are valid at once; `rate_count` requests in `rate_s`, 0: any number."""

    name: str
    role: Role
    values: tuple[str, ...]
    rate_count: int = 0
    rate_s: float = 1.0


class Listen(Struct, frozen=True, kw_only=True):
    """`token` is the resolved value; None on loopback. `tokens` are let in beside it, each for its role. `role` is what
    may be done here, whoever asks.
    """

    host: str
    port: int
    token: str | None = None
    tokens: tuple[Token, ...] = ()
    role: Role = Role.OPERATE

    @property
    def reached_at(self) -> str:
        """The address by which a client on this host reaches it."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  # compared, not bound

    @property
    def authority(self) -> str:
        """`host:port` as it stands in a URL."""
        host = self.reached_at
        return f"{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def url(self) -> str:
        """How a client on this host reaches it."""
        return f"http://{self.authority}"


class EngineAddress(Struct, frozen=True, kw_only=True):
    """Where a Docker Engine is: `url` is unix://, ssh:// or tcp://; paths of TLS files, empty without TLS.

    `here`: it runs on this host, and so sees its files.
    """

    name: str
    url: str
    here: bool
    ca: str = ""
    cert: str = ""
    key: str = ""


class ControlContainers(Struct, frozen=True, kw_only=True):
    """The control plane as containers of the engine whose `socket` is this path of this host."""

    socket: str
    image: str
    redis_image: str


class InputLimits(Struct, frozen=True, kw_only=True):
    """What the input files of jobs may be: `hosts` whose URLs a worker fetches, the size of one file."""

    hosts: tuple[str, ...]
    max_bytes: int


class Settings(Struct, frozen=True, kw_only=True):
    """`redis_url` may hold a password. `embedded` says whether the control plane runs that Redis itself: then it does.

    `artifacts` is the URL of the artifact store. `hosts` are the Docker Engines that machines run on;
    `container_redis_url` is how containers reach Redis, and `redis_listen` are the addresses that the embedded one
    listens on for them, beside loopback. `door` are those where the API hands them worker packages, and
    `api_machine_url` is how machines on other hosts reach it. `containers` None: the control plane runs as processes
    of this host. `inputs` None: written by an emp whose jobs had no input files. `replicas` of Redis are to have what
    must not be lost. `uid` is the user whom the fleet's processes on this host are of; None: written by an earlier emp,
    or the control plane is containers.
    """

    fleet: str
    redis_url: str
    machine_redis_url: str
    embedded: bool
    redis_port: int
    prefix: str
    artifacts: str
    api: Listen
    monitor: Listen
    hosts: tuple[EngineAddress, ...] = ()
    container_redis_url: str = ""
    redis_listen: tuple[str, ...] = ()
    door: tuple[str, ...] = ()
    api_machine_url: str = ""
    containers: ControlContainers | None = None
    inputs: InputLimits | None = None
    replicas: int = 0
    uid: int | None = None

    @property
    def redis_owner(self) -> int | None:
        """Whose Redis it must be, if that is known."""
        return self.uid if self.embedded else None


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` atomically with a 0600 file, on disk before the old one goes. Any number of threads may."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def held_secrets(layout: Layout) -> dict[str, str]:
    """The values that the last apply resolved, by reference; none where they cannot be read."""
    try:
        return msgspec.json.decode(layout.secrets.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return {}


def save(layout: Layout, settings: Settings) -> None:
    write_private(layout.settings, msgspec.json.format(msgspec.json.encode(settings)))


def known(layout: Layout) -> Settings | None:
    """What was applied last; None when nothing was, or it cannot be read."""
    try:
        return load(layout)
    except EmpError:
        return None


def load(layout: Layout) -> Settings:
    """The settings of the fleet in this folder.

    Raises UsageError when none was ever applied here, or they are those of another folder that this one is a copy of.
    """
    ownership.refuse_strangers(layout.root)
    try:
        ownership.refuse_copies(layout.root)
        text = layout.settings.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"no fleet was applied in {layout.root}",
            hint="run `emp apply` here, or name its folder with `emp -C DIR …`",
        ) from None
    except PermissionError as e:
        raise ownership.ForeignFolder(layout.root) from e
    try:
        return msgspec.json.decode(text, type=Settings)
    except (msgspec.DecodeError, msgspec.ValidationError) as e:
        raise EmpError(f"{layout.settings} is damaged: {e}", hint="run `emp apply` again: it writes a new one") from e
