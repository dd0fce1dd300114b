"""Fetches the URL of an input: from allowed hosts only, and never from an address that nobody named.

A worker stands inside networks that whoever submits a job does not: a URL, a redirect or a DNS answer must not lead it
to a private address. So each hop's host is held against `jobs.inputs.hosts`, its addresses are looked up here, checked,
and connected to as they are: a second answer of the DNS is never asked for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from emp_orch.errors import EmpError
from emp_orch.host import sessions
from emp_orch.jobs.document.input_hosts import SETTING, is_named, is_public, refusal
from emp_orch.jobs.document.inputs import shown_url
from emp_orch.worker.config import UrlRules

FETCH_S = 600.0
_CONNECT_S = 10.0
_READ_S = 60.0
_MAX_REDIRECTS = 5
_CHUNK = 256 * 1024
NETWORK = (aiohttp.ClientError, TimeoutError, OSError)


class CannotFetch(EmpError):
    """An input that could not be had. `retryable`: it may be later, or from another machine."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class NotPublic(OSError):
    """A host has an address that is not public, and is not named in full."""


class CheckedResolver(AbstractResolver):
    """The addresses of a host that may be connected to; what it answers is what is connected to."""

    def __init__(self, hosts: Sequence[str], inner: AbstractResolver | None = None) -> None:
        self._hosts = hosts
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not is_named(host, self._hosts) and (bad := [r["host"] for r in found if not is_public(r["host"])]):
            raise NotPublic(f"{host} has the address {bad[0]}, which is not public; to allow it, name it in {SETTING}")
        return found

    async def close(self) -> None:
        await self._inner.close()


@contextmanager
def kept_in_words() -> Iterator[None]:
    """What the disk refuses that a fetched file is kept on, as CannotFetch."""
    try:
        yield
    except OSError as e:
        folder = tempfile.gettempdir()
        raise CannotFetch(f"it cannot be kept in {folder}: {os.strerror(e.errno or 0)}", retryable=True) from e


async def fetch(url: str, into: IO[bytes], rules: UrlRules, resolver: AbstractResolver | None = None) -> int:
    """Write what is at `url` into a file; how many bytes. Raises CannotFetch, whose words hold no query of a URL."""
    timeout = aiohttp.ClientTimeout(total=FETCH_S, sock_connect=_CONNECT_S, sock_read=_READ_S)
    checked = CheckedResolver(rules.hosts, resolver)
    connector = aiohttp.TCPConnector(resolver=checked, use_dns_cache=False, force_close=True)
    here = URL(url, encoded=True)
    try:
        async with (
            asyncio.timeout(FETCH_S),
            sessions.straight(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            ) as session,
        ):
            for _ in range(_MAX_REDIRECTS + 1):
                _check(here, rules)
                options = await _way_to(here, checked)
                async with session.get(here, allow_redirects=False, headers=_HEADERS, **options) as answer:
                    target = answer.headers.get("Location") if 300 <= answer.status < 400 else None
                    if target is None:
                        return await _taken(answer, into, rules)
                    here = _joined(here, target)
        raise CannotFetch(f"{shown_url(url)} redirects without end", retryable=False)
    except NotPublic as e:
        raise CannotFetch(f"{shown_url(str(here))}: {e}", retryable=False) from e
    except TimeoutError as e:
        raise CannotFetch(f"{shown_url(str(here))} is too slow, or does not answer", retryable=True) from e
    except NETWORK as e:
        if isinstance(cause := e.__cause__ or getattr(e, "os_error", None), NotPublic):
            raise CannotFetch(f"{shown_url(str(here))}: {cause}", retryable=False) from e
        words = type(e).__name__ if "?" in str(e) else str(e) or type(e).__name__
        raise CannotFetch(f"{shown_url(str(here))}: {words}", retryable=True) from e


# No more than is needed: the size is that of what is sent, and nobody learns who asks.
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "emp"}


def _check(url: URL, rules: UrlRules) -> None:
    """Raises CannotFetch for another host than allowed, or an address in place of a name that is not public."""
    if url.scheme not in ("http", "https"):
        raise CannotFetch(f"{shown_url(str(url))}: neither http nor https", retryable=False)
    if url.user or url.password:
        raise CannotFetch(f"{shown_url(str(url))}: holds a login, and none is sent", retryable=False)
    if why := refusal(str(url), rules.hosts):
        raise CannotFetch(f"{shown_url(str(url))}: {why}", retryable=False)
    host = url.host or ""
    if _is_address(host) and not is_public(host) and not is_named(host, rules.hosts):
        raise CannotFetch(f"{shown_url(str(url))}: {host} is not public; name it in {SETTING}", retryable=False)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def _way_to(url: URL, checked: CheckedResolver) -> dict[str, Any]:
    """How to ask: through the proxy of the environment, where it has one for that URL, else straight.

    What a proxy connects to is its own matter; a name that we can look up must be allowed all the same.
    """
    way = sessions.way_to(url)
    if not way:
        return {}
    if not _is_address(url.host or ""):
        try:
            await checked.resolve(url.host or "", url.port or 0)
        except NotPublic:
            raise
        except OSError:
            pass  # only the proxy knows it
    # The proxy's own address is the environment's choice.
    return {**way, "proxy": await _as_address(way["proxy"])}


async def _as_address(proxy: URL) -> URL:
    """The proxy's URL by its address, which our resolver does not have to allow."""
    if proxy.scheme == "https" or _is_address(proxy.host or ""):
        return proxy
    found = await asyncio.get_running_loop().getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    return proxy.with_host(str(found[0][4][0]))


def _joined(here: URL, target: str) -> URL:
    try:
        return here.join(URL(target))
    except ValueError as e:
        raise CannotFetch(f"{shown_url(str(here))} redirects to what is no URL", retryable=False) from e


async def _taken(answer: aiohttp.ClientResponse, into: IO[bytes], rules: UrlRules) -> int:
    where = shown_url(str(answer.url))
    if answer.status != 200:
        retryable = answer.status >= 500 or answer.status in (408, 429)
        raise CannotFetch(f"{where} answered {answer.status}", retryable=retryable)
    size = 0
    async for chunk in _bounded(answer, where, rules.max_bytes):
        size += len(chunk)
        with kept_in_words():
            await asyncio.to_thread(into.write, chunk)
    with kept_in_words():
        await asyncio.to_thread(into.flush)
    return size


async def _bounded(answer: aiohttp.ClientResponse, where: str, most: int) -> AsyncIterator[bytes]:
    size = answer.content_length or 0
    if size <= most:
        size = 0
        async for chunk in answer.content.iter_chunked(_CHUNK):
            size += len(chunk)
            if size > most:
                break
            yield chunk
    if size > most:
        raise CannotFetch(f"{where} is larger than {most} bytes, which is jobs.inputs.max_size", retryable=False)
