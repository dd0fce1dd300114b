"""The control plane as containers → compose.yaml text: the daemons of control.conf, one service each."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.fleet.desired.containers import HOME, OWN
from emp_orch.images import built_here
from emp_orch.render.compose import compiled
from emp_orch.render.supervisord import CONTROL_PROGRAMS, EMBEDDED_REDIS

# Which of the daemons asks the engine for containers.
_ENGINE_USER = "reconcile"
# Beyond a daemon's own time to stop: that of writing its last lines.
DAEMON_STOP_MARGIN_S = 5
# What root's files need of the reconciler: machines run as another user, and share the artifacts with it.
_ROOTS_OWN = ("CHOWN", "DAC_OVERRIDE", "FOWNER")


class PlacedControl(Struct, frozen=True, kw_only=True):
    """The control plane of the fleet in the folder `root` of this host, as its containers are to be made.

    `folder` is a digest of `root`, `user` UID:GID, `socket` the engine's with the group `socket_group` that may use it.
    `redis` are the arguments of a Redis server, empty when the fleet uses one of its own; `redis_folder` is where it
    keeps its data. `addresses` are where daemons can be reached from this host, by name. `mounts` are folders that they
    need beside `root`.
    """

    fleet: str
    folder: str
    root: str
    user: str
    socket: str
    socket_group: int
    image: str
    redis_image: str
    redis: tuple[str, ...]
    redis_folder: str
    logs: str
    addresses: dict[str, tuple[str, int]]
    mounts: tuple[str, ...]


class _Part(Struct, frozen=True, kw_only=True):
    """A service of the file. `scratch` is in memory: /tmp, and where the image would else get a volume without name."""

    name: str
    image: str
    never_pulled: bool
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    binds: tuple[str, ...]
    scratch: tuple[str, ...]
    groups: tuple[int, ...]
    caps: tuple[str, ...]
    health: tuple[str, ...]
    after: str
    stop_s: int


def render_control_compose(template: str, placed: PlacedControl, *, project: str) -> str:
    """compose.yaml of the control plane; `template` is templates/compose-control.yaml.j2."""
    parts = [
        *([_redis(placed)] if placed.redis else []),
        *(_daemon(placed, p.name, p.stop_seconds) for p in CONTROL_PROGRAMS),
    ]
    owner = (("emp.fleet", placed.fleet), ("emp.folder", placed.folder), ("emp.root", placed.root))
    return compiled(template).render(project=project, user=placed.user, owner=owner, parts=parts)


def _redis(placed: PlacedControl) -> _Part:
    """Redis says nothing of its health but that it answers: with a password it refuses, which is an answer too."""
    host, port = placed.addresses[EMBEDDED_REDIS.name]
    return _Part(
        name=EMBEDDED_REDIS.name,
        image=placed.redis_image,
        never_pulled=False,
        entrypoint=("redis-server",),
        command=(*placed.redis, "--logfile", f"{placed.logs}/{EMBEDDED_REDIS.log}.log"),
        environment=(),
        binds=(placed.redis_folder, placed.logs),
        scratch=("/tmp", "/data"),  # noqa: S108
        groups=(),
        caps=(),
        health=("redis-cli", "-h", host, "-p", str(port), "ping"),
        after="",
        stop_s=EMBEDDED_REDIS.stop_seconds,
    )


def _daemon(placed: PlacedControl, name: str, stop_s: int) -> _Part:
    engine = name == _ENGINE_USER
    return _Part(
        name=name,
        image=placed.image,
        never_pulled=built_here(placed.image),
        entrypoint=("emp",),
        command=("-C", placed.root, "control", "--part", name),
        environment=(("HOME", "/tmp"), *((("DOCKER_HOST", f"unix://{placed.socket}"),) if engine else ())),  # noqa: S108
        binds=(placed.root, *placed.mounts, *((placed.socket,) if engine else ())),
        scratch=("/tmp", HOME, OWN),  # noqa: S108
        groups=(placed.socket_group,) if engine else (),
        caps=_ROOTS_OWN if engine and placed.user.startswith("0:") else (),
        health=_listens(*placed.addresses[name]) if name in placed.addresses else (),
        after=EMBEDDED_REDIS.name if placed.redis else "",
        stop_s=stop_s + DAEMON_STOP_MARGIN_S,
    )


def _listens(host: str, port: int) -> tuple[str, ...]:
    return ("python3", "-I", "-c", f"import socket; socket.create_connection(({host!r}, {port}), 2)")
