"""URLs of inputs: only from hosts that are named, and never from an address that nobody named."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from emp_orch.worker.config import UrlRules
from emp_orch.worker.files.input_urls import CannotFetch, fetch
from support.worker.connector import serving

MAX = 1000
SECRET = "sig=topsecret"


class Names(AbstractResolver):
    """A DNS that answers as it is told, and remembers what it was asked for."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        found = self.addresses.get(host.partition(".")[0])
        if not found:
            raise OSError(f"no such host {host}")
        address = found.pop(0) if len(found) > 1 else found[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


class Site:
    """A web server of this host, and what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.app = web.Application()
        self.app.router.add_get("/{what}", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        match request.match_info["what"]:
            case "picture":
                return web.Response(body=b"picture")
            case "to":
                return web.Response(status=302, headers={"Location": request.query["u"]})
            case "large":
                return web.Response(body=bytes(MAX + 1))
            case "endless":
                response = web.StreamResponse()
                await response.prepare(request)
                for _ in range(10):
                    await response.write(bytes(MAX))
                return response
            case status:
                return web.Response(status=int(status))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def site() -> AsyncIterator[tuple[Site, str]]:
    made = Site()
    async with serving(made.app) as url:
        yield made, url


async def got(url: str, *hosts: str, names: Names | None = None) -> bytes:
    file = io.BytesIO()
    size = await fetch(url, file, UrlRules(hosts=hosts, max_bytes=MAX), names)
    assert size == len(file.getvalue())
    return file.getvalue()


async def refused(url: str, *hosts: str, names: Names | None = None) -> CannotFetch:
    with pytest.raises(CannotFetch) as caught:
        await got(url, *hosts, names=names)
    assert "topsecret" not in caught.value.message
    return caught.value


async def test_an_address_that_is_named_is_fetched(site: tuple[Site, str]) -> None:
    made, url = site
    assert await got(f"{url}/picture?{SECRET}", "127.0.0.1") == b"picture"
    assert await got(f"{url}/to?u=/picture", "127.0.0.1") == b"picture"
    sent = made.asked[0].headers
    assert "Authorization" not in sent and "Cookie" not in sent and sent["Accept-Encoding"] == "identity"


async def test_what_is_not_named_is_not_asked(site: tuple[Site, str]) -> None:
    made, url = site
    port = URL(url).port
    for address, *hosts in (
        (f"{url}/picture?{SECRET}",),
        (f"{url}/picture", "*.0.0.1"),
        (f"{url}/picture", "example.org"),
        (f"http://evil.org:{port}/picture", "*.example.org"),
        (f"http://example.org:{port}/picture", "*.example.org"),
        (f"http://a.example.org.evil.org:{port}/picture", "*.example.org"),
    ):
        error = await refused(address, *hosts, names=Names(evil=["127.0.0.1"], example=["127.0.0.1"]))
        assert not error.retryable and "jobs.inputs.hosts" in error.message
    assert made.asked == []


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
async def test_a_name_that_leads_to_a_private_address_is_refused(address: str) -> None:
    error = await refused("http://a.example.org/x", "*.example.org", names=Names(a=[address]))
    assert f"a.example.org has the address {address}, which is not public" in error.message and not error.retryable


async def test_a_name_in_full_may_lead_where_its_owner_wants(site: tuple[Site, str]) -> None:
    url = URL(site[1]).with_host("a.example.org")
    assert await got(str(url / "picture"), "a.example.org", names=Names(a=["127.0.0.1"])) == b"picture"


async def test_no_second_answer_of_the_dns_is_asked_for(site: tuple[Site, str]) -> None:
    """Rebinding: checked is one address, connected to another. Here only one is ever looked up."""
    made, url = site
    names = Names(a=["127.0.0.1", "10.0.0.1"])
    there = URL(url).with_host("a.example.org") / "picture"
    assert await got(str(there), "a.example.org", names=names) == b"picture"
    assert names.asked == ["a.example.org"]
    names = Names(a=["10.0.0.1", "127.0.0.1"])
    await refused(str(there), "*.example.org", names=names)
    assert names.asked == ["a.example.org"] and len(made.asked) == 1


async def test_redirects_are_held_to_the_same_rule(site: tuple[Site, str]) -> None:
    made, url = site
    names = Names(meta=["169.254.169.254"], b=["127.0.0.1"])
    for target, words in (
        ("http://169.254.169.254/latest/meta-data", "is not one of jobs.inputs.hosts"),
        ("http://meta.example.org/latest", "has the address 169.254.169.254, which is not public"),
        ("http://localhost/picture", "localhost is not one of"),
        ("http://me:pw@b.example.org/picture", "holds a login"),
        ("file:///etc/passwd", "neither http nor https"),
        ("http://[::1/", "no URL"),
    ):
        error = await refused(str(URL(url) / "to" % {"u": target}), "127.0.0.1", "*.example.org", names=names)
        assert words in error.message and not error.retryable, error.message
    error = await refused(f"{url}/to?u=/to?u=/", "127.0.0.1")
    assert "answered" in error.message or "redirects without end" in error.message
    assert all(request.path == "/to" for request in made.asked[:6])


async def test_sizes_statuses_and_silence(site: tuple[Site, str]) -> None:
    _, url = site
    for path, words, retryable in (
        ("large", "is larger than 1000 bytes", False),
        ("endless", "is larger than 1000 bytes", False),
        ("404", "answered 404", False),
        ("503", "answered 503", True),
        ("429", "answered 429", True),
    ):
        error = await refused(f"{url}/{path}?{SECRET}", "127.0.0.1")
        assert words in error.message and error.retryable is retryable, error.message
    assert (await refused("http://127.0.0.1:1/x", "127.0.0.1")).retryable
    assert (await refused("http://a.example.org/x", "*.example.org", names=Names())).retryable


async def test_a_proxy_of_the_environment_is_used_and_a_name_that_is_private_is_refused_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\npicture")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1")
    async with server:
        monkeypatch.setenv("http_proxy", f"http://localhost:{server.sockets[0].getsockname()[1]}")
        assert await got("http://a.example.org/x", "*.example.org", names=Names()) == b"picture"
        assert asked == [b"GET http://a.example.org/x HTTP/1.1\r\n"]
        await refused("http://a.example.org/x", "*.example.org", names=Names(a=["10.0.0.1"]))
        await refused("http://evil.org/x", "*.example.org", names=Names())
        assert len(asked) == 1
