"""The one place that makes HTTP sessions, and says which way a request goes.

What belongs to the fleet (API, monitor, services, the agents of machines) is reached straight, whatever the environment
says of proxies. A request to what is outside goes the way that the environment names, by the options that `way_to`
gives for it. tests/unit/host/test_one_session_place holds that nobody else makes a session.
"""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from emp_orch.host.ports import refuse_strangers
from emp_orch.host.proxies import proxy_for


class UnusableProxy(OSError):
    """The environment names a proxy that emp cannot speak to."""


def straight(**options: Any) -> aiohttp.ClientSession:
    """A session that no variable of the environment leads elsewhere; `options` are aiohttp's."""
    return aiohttp.ClientSession(trust_env=False, **options)


def to_own(owner: int | None, *, limit: int = 100, **options: Any) -> aiohttp.ClientSession:
    """As `straight`, to a server of the user `owner`: on loopback any other is told nothing (ports.StrangersPort, which
    aiohttp passes on as ClientConnectorError). None: anybody's. `limit`: connections at most, 0: any number.
    """
    made = _checked(owner) if owner is not None else None
    return straight(connector=aiohttp.TCPConnector(limit=limit, socket_factory=made), **options)


def _checked(owner: int) -> Callable[[Any], socket.socket]:
    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        refuse_strangers(str(address[0]), int(address[1]), owner)
        return socket.socket(family, kind, protocol)

    return make


def way_to(url: URL) -> dict[str, Any]:
    """aiohttp's options for a request to `url`, outside the fleet; empty: straight. Raises UnusableProxy."""
    variable, value = proxy_for(url.scheme, url.host or "", url.port, os.environ)
    if not value:
        return {}
    try:
        proxy = URL(value)
        usable = proxy.scheme in ("http", "https") and bool(proxy.host and proxy.port)
    except ValueError:
        usable = False
    if not usable:
        # The value may hold a password.
        raise UnusableProxy(f"{variable} names no http proxy (http://HOST:PORT), which is all that emp speaks to")
    if proxy.user is None and proxy.password is None:
        return {"proxy": proxy}
    login = b64encode(f"{proxy.user or ''}:{proxy.password or ''}".encode()).decode()
    # Not in the URL, which errors repeat. aiohttp makes it Proxy-Authorization, of the request or of the tunnel's.
    return {"proxy": proxy.with_user(None), "proxy_headers": {"Authorization": f"Basic {login}"}}
