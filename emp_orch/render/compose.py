"""The machines of one Docker host → compose.yaml text, which a person may also run by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from jinja2 import Environment, StrictUndefined, Template
from msgspec import Struct

from emp_orch.fleet.desired.artifacts import THROUGH_API
from emp_orch.fleet.desired.containers import OWN, container_hash
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.render.box import Box, box_of
from emp_orch.render.quoting import compose_text

# Where a folder of the host is mounted that its logs go to: not in the volume, whose folders Docker would make root's.
LOGS = "/var/log/emp"
OWN_LOG = "supervisord.log"
# What is copied into the machine's volume for want of a folder of the engine's host.
SECRETS_IN_OWN = f"{OWN}/secrets"
SECRETS_MOUNTED = "/run/secrets"
REDIS_SECRET = "hub_redis_url"  # noqa: S105  # a file's name
VALUES_SECRET = "secrets.json"  # noqa: S105
API_SECRET = "api.json"  # noqa: S105
COMMAND_KEY_SECRET = "orders.json"  # noqa: S105


class Placed(Struct, frozen=True, kw_only=True):
    """One machine as its container is to be made. Everything here may be shown: `redis_url` holds no password.

    `digest` is its config_hash, `folder` a digest of the fleet's folder `root`, `user` UID:GID. `secrets` is a folder
    of the engine's host with the files REDIS_SECRET, VALUES_SECRET and ORDERS_SECRET, and where `api` API_SECRET;
    None: they are in the machine's volume. `artifacts` is a folder of the host that the machine sees under the same
    path, `logs` one that its logs go to.
    """

    machine: DesiredMachine
    generation: int
    digest: str
    folder: str
    user: str
    redis_url: str
    prefix: str
    artifacts_url: str
    secrets: str | None
    artifacts: str | None
    logs: str | None = None
    root: str = ""
    api: bool = False


class _Service(Struct, frozen=True, kw_only=True):
    """A service of the file, in words that the template only has to place."""

    id: str
    box: Box
    user: str
    environment: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    volume_labels: tuple[tuple[str, str], ...]
    secrets: tuple[tuple[str, str], ...]
    binds: tuple[tuple[str, str, bool], ...]
    ports: tuple[int, ...]


@lru_cache(maxsize=4)
def compiled(template: str) -> Template:
    """A template of YAML, in which `| q` quotes a value."""
    # The output is YAML, not HTML; compose_text is its escaping.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    environment.filters["q"] = compose_text
    return environment.from_string(template)


def render_compose(template: str, placed: Sequence[Placed], *, fleet: str, project: str) -> str:
    """compose.yaml of the Docker host that runs all `placed`; `template` is templates/compose.yaml.j2.

    `project` is the Compose project's name: lower-case letters, digits, - and _.
    """
    return compiled(template).render(fleet=fleet, project=project, services=[_service(p, fleet) for p in placed])


def _service(placed: Placed, fleet: str) -> _Service:
    machine, container = placed.machine, placed.machine.container
    if container is None:
        raise ValueError(f"machine {machine.id} is no container")
    box = box_of(machine, container)
    owner = (
        ("emp.fleet", fleet),
        ("emp.folder", placed.folder),
        ("emp.root", placed.root),
        ("emp.machine", machine.id),
    )
    return _Service(
        id=machine.id,
        box=box,
        user=placed.user,
        environment=_environment(placed),
        labels=(
            *owner,
            ("emp.generation", str(placed.generation)),
            ("emp.config", placed.digest),
            ("emp.container", container_hash(machine)),
            ("emp.image", container.image),
            ("emp.image-id", container.image_id),
        ),
        volume_labels=owner,
        secrets=_secrets(placed),
        binds=_binds(placed, box),
        ports=container.publish,
    )


def _environment(placed: Placed) -> tuple[tuple[str, str], ...]:
    where = SECRETS_IN_OWN if placed.secrets is None else SECRETS_MOUNTED
    logs = (
        () if placed.logs is None else (("EMP_MACHINE_LOGS", LOGS), ("EMP_MACHINE_LOG", f"{_logs(placed)}/{OWN_LOG}"))
    )
    # What its workers are told anyway: where api.json is not there, they must not write to the container's own disk.
    through_api = any(THROUGH_API in p.argv for p in placed.machine.programs)
    return (
        ("MACHINE_ID", placed.machine.id),
        ("NUM_GPUS", str(placed.machine.num_gpus)),
        ("HUB_REDIS_URL", placed.redis_url),
        ("HUB_REDIS_URL_FILE", f"{where}/{REDIS_SECRET}"),
        ("REDIS_URL", placed.redis_url),
        ("EMP_REDIS_PREFIX", placed.prefix),
        ("EMP_ARTIFACTS_URL", THROUGH_API if through_api else placed.artifacts_url),
        ("EMP_SECRETS", f"{where}/{VALUES_SECRET}"),
        ("EMP_ORDERS", f"{where}/{COMMAND_KEY_SECRET}"),
        *((("EMP_API", f"{where}/{API_SECRET}"),) if placed.api else ()),
        *logs,
    )


def _secrets(placed: Placed) -> tuple[tuple[str, str], ...]:
    """The name of each secret in the container, and its file on the host."""
    if placed.secrets is None:
        return ()
    names = (REDIS_SECRET, VALUES_SECRET, COMMAND_KEY_SECRET, *((API_SECRET,) if placed.api else ()))
    return tuple((name, f"{placed.secrets}/{name}") for name in names)


def _logs(placed: Placed) -> str:
    return f"{LOGS}/machine-{placed.machine.id}"


def _binds(placed: Placed, box: Box) -> tuple[tuple[str, str, bool], ...]:
    """Folders of the host: its path, the container's, and whether it is only read."""
    shared = [(source, source) for source in (placed.artifacts,) if source is not None]
    shared += [(source, _logs(placed)) for source in (placed.logs,) if source is not None]
    return (*box.volumes, *((source, target, False) for source, target in shared))
