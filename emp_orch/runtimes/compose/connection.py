"""The way to one Docker Engine: a client of the Docker SDK, and what goes wrong on it, told as ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import requests
from docker.api.client import APIClient
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, NotFound
from docker.tls import TLSConfig

from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.model.fleet import DockerHost
from emp_orch.fleet.model.hosts import LOCAL, is_here
from emp_orch.runtimes.compose.context import engine_of
from emp_orch.runtimes.compose.ssh import SshAdapter
from emp_orch.settings import EngineAddress

# For an answer, not for work: a stop waits longer, and says so itself.
ANSWER_S = 5.0


class EngineAway(Unreachable):
    """The engine does not answer, or there is no way to ask it."""


class Connection:
    """To the engine of one Docker host. Made when it is needed, and made anew after a failure."""

    def __init__(self, host: EngineAddress, *, answer_s: float = ANSWER_S) -> None:
        self.host = host
        self._answer_s = answer_s
        self._client: APIClient | None = None

    @property
    def named(self) -> str:
        """For people: which host, and where."""
        return named(self.host)

    @contextmanager
    def asking(self) -> Iterator[APIClient]:
        """A client; what goes wrong is told as ours, and a broken connection is not used again."""
        try:
            if self._client is None:
                self._client = _connected(self.host, self._answer_s)
            yield self._client
        except NotFound as e:
            raise EmpError(f"{self.named}: {e.explanation or e}") from e
        except APIError as e:
            raise EmpError(f"{self.named} refused: {e.explanation or e}") from e
        except (DockerException, requests.RequestException, OSError) as e:
            self.close()
            raise EngineAway(f"{self.named} does not answer: {_reason(e)}", hint=hint_for(self.host)) from e

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def named(host: EngineAddress) -> str:
    """For people: which host, and where."""
    return f"Docker host {host.name} ({host.url})"


def local_host() -> EngineAddress:
    """The engine that the docker command line of this host speaks with. Raises UsageError for a context without one."""
    named = engine_of(os.environ)
    kind = {Path(file).stem: file for file in named.tls}
    return EngineAddress(name=LOCAL, url=named.url, here=is_here(DockerHost(docker=named.url, tls=None)), **kind)


def _connected(host: EngineAddress, answer_s: float) -> APIClient:
    if host.url.startswith("ssh://"):
        way = SshAdapter(host.url)  # both clients speak over one connection: on a far host each takes seconds to begin
        spoken = _over(way, answer_s, DEFAULT_DOCKER_API_VERSION).version(api_version=False)
        return _over(way, answer_s, str(spoken["ApiVersion"]))
    tls = None
    if host.ca or host.cert:
        pair = (host.cert, host.key) if host.cert else None
        tls = TLSConfig(client_cert=pair, ca_cert=host.ca or None, verify=True)
    return _Client(base_url=host.url, tls=cast(Any, tls or False), timeout=cast(Any, answer_s), version="auto")


def _over(way: SshAdapter, answer_s: float, version: str) -> APIClient:
    # A socket that is never opened: what is mounted speaks for it.
    client = _Client(base_url="unix:///ssh", timeout=cast(Any, answer_s), version=version)
    client.mount("http+docker://", way)
    return client


class _Client(APIClient):
    """The SDK's, which no variable leads elsewhere: it goes through no proxy, and trusts the CA that it is told to."""

    # Its base sets this to True, and asks the engine for its version before one could set it back.
    @property
    def trust_env(self) -> bool:
        return False

    @trust_env.setter
    def trust_env(self, _: bool) -> None:
        """It stays as it is."""


def _reason(e: BaseException) -> str:
    """The innermost cause: the SDK wraps it three times."""
    seen: set[int] = set()
    while id(e) not in seen:
        seen.add(id(e))
        inner = e.__cause__ or e.__context__ or next((a for a in e.args if isinstance(a, BaseException)), None)
        if inner is None:
            break
        e = inner
    return (e.strerror if isinstance(e, OSError) and e.strerror else str(e)) or type(e).__name__


def hint_for(host: EngineAddress) -> str:
    """What a person can do about an engine that does not answer."""
    if host.url.startswith("ssh://"):
        return f"try `docker -H {host.url} info`: it must answer without a question"
    if host.here:
        return (
            "start Docker, or name its address in DOCKER_HOST or a docker context; your user must be allowed to use it"
        )
    return "check the address, the firewall and the TLS files"
