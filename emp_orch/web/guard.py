"""Who may call a server: Host and Origin on loopback, a token everywhere else, and what that token is good for.

A web page elsewhere can make a browser send requests to 127.0.0.1. Two checks keep it out: its DNS name, rebound to a
loopback address, stands in `Host`; its own address stands in `Origin` of every write and every WebSocket.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from emp_orch.errors import UsageError
from emp_orch.roles import Role
from emp_orch.web.callers import Caller, found
from emp_orch.web.errors import Handler, Refused

ALL = frozenset(Role)
READS = frozenset({"GET", "HEAD", "OPTIONS"})


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, IPv6 with or without brackets) means this host only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_token(what: str, host: str, token: str | None) -> None:
    """Raises UsageError when `what` would listen beyond this host without a token."""
    if not is_loopback(host) and not token:
        raise UsageError(
            f"{what} may not listen on {host} without a token: everybody who reaches it could command the fleet",
            hint=f"set {what}.token in emp.yaml, for example `token: {{env: EMP_TOKEN}}`, or listen on 127.0.0.1",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """`origins`: others than the server's own that may write. `is_open` tells which requests need no token.

    Who has `token` may do everything. `callers` have tokens of their own beside it, and `roles` tells which of theirs a
    request needs.
    """

    loopback: bool
    token: str | None = field(repr=False)
    origins: frozenset[str]
    is_open: Callable[[web.Request], bool]
    callers: tuple[Caller, ...] = ()
    roles: Callable[[web.Request], frozenset[Role]] = lambda request: ALL

    def check(self, request: web.Request) -> None:
        """Raises Refused (403, 401, 429) for a request that may not pass."""
        if self.loopback:
            self._check_host(request)
        self._check_origin(request)
        if self.token is not None and not self.is_open(request):
            self._check_token(request, self.token)

    def _check_host(self, request: web.Request) -> None:
        host = request.headers.get("Host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if not is_loopback(name):
            raise Refused(403, f"Host {host!r} is not this machine: a server on loopback answers to localhost only")

    def _check_origin(self, request: web.Request) -> None:
        websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        if request.method in READS and not websocket:
            return
        origin = request.headers.get("Origin")
        if origin is None:
            if request.headers.get("Sec-Fetch-Site", "same-origin") in ("cross-site", "same-site"):
                raise Refused(403, "a page of another origin may not write here")
            return
        own = {f"http://{request.host}", f"https://{request.host}"}
        if origin not in own and origin not in self.origins:
            raise Refused(403, f"Origin {origin!r} may not write here")

    def _check_token(self, request: web.Request, token: str) -> None:
        given = _given(request)
        caller = found(self.callers, given)
        if caller is not None:
            caller.spend()
            caller.check(self.roles(request))
        elif not hmac.compare_digest(given, token.encode()):
            why = "the token is wrong" if given else "a token is needed: Authorization: Bearer … or ?token=…"
            raise Refused(401, why, headers={"WWW-Authenticate": "Bearer"})

    def spend(self, request: web.Request) -> None:
        """Count what came over the open connection of `request` as one more. Raises Refused (429)."""
        caller = found(self.callers, _given(request))
        if caller is not None:
            caller.spend()


def _given(request: web.Request) -> bytes:
    """The token that a request shows; nothing when it shows none."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = request.query.get("token", "")
    return given.strip().encode("utf-8", "surrogateescape")


GUARD = web.AppKey("guard", Guard)


def guarded(guard: Guard) -> Middleware:
    """`guard` as a middleware."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        guard.check(request)
        return await handler(request)

    return middleware


def local_origins(*ports: int) -> frozenset[str]:
    """The origins a browser on this host may name for servers on these ports."""
    return frozenset(f"http://{host}:{port}" for host in ("localhost", "127.0.0.1", "[::1]") for port in ports)
