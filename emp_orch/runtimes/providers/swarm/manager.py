"""One manager of a Swarm: the calls that a pool needs, through the Docker SDK. Each may block; callers use threads.

A call ends within ANSWER_S a step, or with the engine's own words.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from docker.errors import APIError, DockerException, NotFound
from docker.types import TaskTemplate

from emp_orch.errors import EmpError, UsageError
from emp_orch.images import built_here
from emp_orch.plaintext import one_line
from emp_orch.runtimes.compose.connection import Connection
from emp_orch.runtimes.providers.base import ProviderError
from emp_orch.settings import EngineAddress

log = logging.getLogger("swarm")

ANSWER_S = 5.0
# The manager asks the image's registry, which may be far.
REGISTRY_S = 15.0
# How long an answer of the registry holds: forty members that come together ask it once.
DIGEST_S = 60.0
_TAKEN = 409
_MAX_WORDS = 1000
_NO_MANAGER = "is not a swarm manager"


class Manager:
    """The engine at `host`. Its calls raise ProviderError."""

    def __init__(self, host: EngineAddress) -> None:
        self._connection = Connection(host, answer_s=ANSWER_S)
        self._registry = Connection(host, answer_s=REGISTRY_S)
        self._digests: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    # -- what is there

    def services(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        with self._asking() as client:
            return list(client.services(filters={"label": _filter(labels)}))

    def tasks(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """All lives that Swarm remembers, of services that were removed too while they drain."""
        with self._asking() as client:
            return list(client.tasks(filters={"label": _filter(labels)}))

    def nodes(self) -> list[dict[str, Any]]:
        with self._asking() as client:
            return list(client.nodes())

    # -- what is made and removed

    def make_secret(self, name: str, value: str, labels: Mapping[str, str]) -> str:
        """Its id. One of that name that no service uses is of an earlier try, and its value cannot be read: it goes."""
        with self._asking() as client:
            for again in (True, False):
                try:
                    return str(client.create_secret(name, value.encode(), labels=dict(labels))["ID"])
                except APIError as e:
                    if not (again and e.status_code == _TAKEN):
                        raise
                self._drop_secrets(client, labels)
        raise AssertionError("the second try returns or raises")

    def make_service(self, name: str, template: TaskTemplate, labels: Mapping[str, str]) -> bool:
        """Whether it was made; False where there is one of that name."""
        with self._asking() as client:
            try:
                client.create_service(template, name=name, labels=dict(labels), mode={"Replicated": {"Replicas": 1}})
            except APIError as e:
                if e.status_code == _TAKEN:
                    return False
                raise
        return True

    def drop_service(self, service_id: str) -> None:
        """Swarm ends its container in good order, within its stop grace period. One that is gone is fine."""
        with self._asking() as client, suppress(NotFound):
            client.remove_service(service_id)

    def drop_secrets(self, labels: Mapping[str, str]) -> None:
        with self._asking() as client:
            self._drop_secrets(client, labels)

    def _drop_secrets(self, client: Any, labels: Mapping[str, str]) -> None:
        for secret in client.secrets(filters={"label": _filter(labels)}):
            with suppress(NotFound):
                client.remove_secret(str(secret["ID"]))

    # -- images

    def pinned(self, image: str) -> str:
        """`image` with the digest that its registry has for it now, so that every node runs the same; as it is where
        no registry tells one.
        """
        if "@" in image or image.startswith("sha256:") or built_here(image):
            return image
        with self._lock:
            at, digest = self._digests.get(image, (0.0, ""))
            if not at or time.monotonic() - at > DIGEST_S:
                digest = self._digest(image)
                self._digests[image] = time.monotonic(), digest
        return f"{image}@{digest}" if digest else image

    def _digest(self, image: str) -> str:
        try:
            with self._registry.asking() as client:
                found = cast(Any, client).inspect_distribution(image)
            return str(found["Descriptor"]["digest"])
        except (EmpError, KeyError, TypeError) as e:
            log.info("no digest of %s, each node looks for it by name: %s", image, one_line(str(e))[:_MAX_WORDS])
            return ""

    # -- told by the engine

    def events(self, begun: Callable[[Callable[[], None]], None]) -> Iterator[dict[str, Any]]:
        """What happens to services, nodes and this manager's own containers, until the connection breaks. `begun` is
        handed what ends it, from any thread.
        """
        with self._asking() as client:
            filters = {"type": ["service", "node", "container"]}
            # Without a read timeout: that nothing happens is no failure.
            streaming = client.events(decode=True, filters=filters)

            def end() -> None:
                with suppress(DockerException, OSError, AttributeError, ValueError):
                    streaming.close()

            begun(end)
            for event in streaming:
                if isinstance(event, dict):
                    yield event

    def close(self) -> None:
        self._connection.close()
        self._registry.close()

    @contextmanager
    def _asking(self) -> Iterator[Any]:  # half of the SDK has no types
        try:
            with self._connection.asking() as client:
                yield client
        except ProviderError:
            raise
        except EmpError as e:
            words = one_line(e.message)[:_MAX_WORDS]
            hint = e.hint
            if _NO_MANAGER in words:
                hint = (
                    "name a manager of the Swarm in provider_options.host; where there is no Swarm yet, "
                    "`docker swarm init` on that host makes one"
                )
            raise ProviderError(words, hint=hint) from e
        except (KeyError, TypeError, ValueError) as e:
            raise ProviderError(f"{self._connection.named} gave an answer that cannot be read: {e}") from e


def manager_of(name: str, hosts: tuple[EngineAddress, ...]) -> EngineAddress:
    """The Docker host of that name. Raises ProviderError."""
    from emp_orch.fleet.model.hosts import LOCAL
    from emp_orch.runtimes.compose.connection import local_host

    found = next((host for host in hosts if host.name == name), None)
    if found is not None:
        return found
    if name != LOCAL:
        raise ProviderError(
            f"there is no Docker host {name} for provider_options.host",
            hint=f"name it in `hosts:` and `emp apply`; there are: {', '.join(h.name for h in hosts) or LOCAL}",
        )
    try:
        return local_host()
    except UsageError as e:
        raise ProviderError(e.message, hint=e.hint) from e


def _filter(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in labels.items()]
