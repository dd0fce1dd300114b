"""How the control plane, machines of this host, and containers reach Redis; and where containers find the API."""

from __future__ import annotations

import secrets

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import EMBEDDED, Fleet
from emp_orch.fleet.model.hosts import EVERYWHERE, HOST_GATEWAY, is_loopback
from emp_orch.runtimes.compose.engine import Engine
from emp_orch.settings import EngineAddress, Settings
from emp_orch.urls import password_of, with_hosts, with_login


class RedisAddresses(Struct, frozen=True, kw_only=True):
    """`listen` are addresses of this host that the embedded Redis listens on beside loopback."""

    control: str
    machine: str
    container: str
    listen: tuple[str, ...]


def redis_addresses(
    fleet: Fleet, hosts: tuple[EngineAddress, ...], known: Settings | None, password: str
) -> RedisAddresses:
    """The URLs, with the password that the embedded Redis always has: `password` where one is kept.

    `known` are the settings in force: what was found out for them stands. Raises EmpError when the engine must be
    asked and does not answer.
    """
    if fleet.redis.url != EMBEDDED:
        given = fleet.redis.machine_url
        container = given or _by_name(fleet.redis.url)
        return RedisAddresses(control=fleet.redis.url, machine=given or fleet.redis.url, container=container, listen=())
    known = known if known is not None and known.embedded else None
    listen = known.redis_listen if known else ()
    if _contained(fleet) and not listen and not fleet.redis.machine_url:
        listen = _gateways(hosts)
    password = password or (password_of(known.redis_url) if known else "") or secrets.token_urlsafe(24)
    url, given = f"redis://:{password}@127.0.0.1:{fleet.redis.port}/0", fleet.redis.machine_url
    if given and not password_of(given):  # another way to the same server
        given = with_login(given, "", password)
    container = given or f"redis://:{password}@{HOST_GATEWAY}:{fleet.redis.port}/0"
    return RedisAddresses(control=url, machine=given or url, container=container, listen=listen)


def _by_name(url: str) -> str:
    """A URL on loopback as a container must write it."""
    return with_hosts(url, lambda host: HOST_GATEWAY if is_loopback(host) else host)


def api_addresses(
    fleet: Fleet, hosts: tuple[EngineAddress, ...], known: Settings | None, listen: tuple[str, ...]
) -> tuple[str, ...]:
    """The addresses of this host where its containers find the API, beside where it listens anyway.

    `listen` are those where they find Redis: the same, when there are any.
    """
    if not _contained(fleet) or fleet.api.host in EVERYWHERE:
        return ()
    if known is not None and known.door:
        return known.door
    if listen:
        return listen
    try:
        return _gateways(hosts)
    except EmpError:
        return ()  # it does not answer now: until the next apply containers run the worker of their image


def _gateways(hosts: tuple[EngineAddress, ...]) -> tuple[str, ...]:
    """By which address containers of this host know it. Raises EmpError when the engine does not say."""
    return tuple(Engine(h).gateway() for h in hosts if h.here)[:1]


def _contained(fleet: Fleet) -> bool:
    return any(m.traits.in_container for m in fleet.machines)
