"""Which engine this host's docker command speaks with: by DOCKER_HOST, else by its context, else the default socket.

Source: the docker command line, which keeps `contexts/` beside its config.json
(https://docs.docker.com/engine/manage-resources/contexts/). The SDK's reader finds no context where there is no
config.json yet, and knows no DOCKER_CONTEXT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.errors import UsageError

DEFAULT = "default"
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
_MALFORMED = (OSError, msgspec.MsgspecError, UnicodeError, RecursionError)


class Named(Struct, frozen=True, kw_only=True):
    """`tls`: the files of the CA, the certificate and its key; those that are there."""

    url: str
    tls: tuple[str, ...] = ()


class _Config(Struct):
    currentContext: str = ""


class _Endpoint(Struct):
    Host: str = ""


class _Meta(Struct):
    Endpoints: dict[str, _Endpoint] = {}


def engine_of(environ: Mapping[str, str]) -> Named:
    """The engine that `docker` would speak with. Raises UsageError for a context that names none."""
    if url := environ.get("DOCKER_HOST"):
        folder = environ.get("DOCKER_CERT_PATH", "") if environ.get("DOCKER_TLS_VERIFY") else ""
        certs = tuple(str(Path(folder) / name) for name in _TLS_FILES) if folder and url.startswith("tcp://") else ()
        return Named(url=url, tls=certs)
    config = Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = environ.get("DOCKER_CONTEXT") or _in_use(config)
    return Named(url=DEFAULT_SOCKET) if name == DEFAULT else _of_context(config / "contexts", name)


def _in_use(config: Path) -> str:
    """The context of `docker context use`. A file that the docker command line cannot read either names none."""
    try:
        return msgspec.json.decode((config / "config.json").read_bytes(), type=_Config).currentContext or DEFAULT
    except _MALFORMED:
        return DEFAULT


def _of_context(contexts: Path, name: str) -> Named:
    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = msgspec.json.decode((contexts / "meta" / digest / "meta.json").read_bytes(), type=_Meta)
    except FileNotFoundError:
        raise _unusable(name, "there is no such context") from None
    except _MALFORMED as e:
        raise _unusable(name, str(e)) from e
    url = meta.Endpoints.get("docker", _Endpoint()).Host
    if "://" not in url:
        raise _unusable(name, "it names no engine")
    files = (contexts / "tls" / digest / "docker" / file for file in _TLS_FILES)
    return Named(url=url, tls=tuple(str(file) for file in files if file.exists()))


def _unusable(name: str, why: str) -> UsageError:
    return UsageError(
        f"the docker context {name!r} cannot be used: {why}",
        hint="`docker context ls` lists them; `docker context use default`, or name an engine in DOCKER_HOST",
    )
