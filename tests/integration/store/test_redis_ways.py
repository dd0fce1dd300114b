"""How a Redis is reached: logins full of special characters, TLS with an own CA, sockets; and what is said when not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
import redis

from emp_orch.errors import Unreachable
from emp_orch.manifest.checks.addresses import redis_problem
from emp_orch.store.redis.client import address, connected, redacted
from support.redis.server import running_server
from support.redis.tls import tls

PASSWORD = "p/w@#?%:&=[] ä"


class Ways(NamedTuple):
    plain: int
    secure: int
    folder: Path
    socket: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    folder = tmp_path_factory.mktemp("ways")
    ca, port, options = tls(folder / "tls")
    socket = folder / "a b@.sock"
    with running_server("redis", folder / "data", *options, "--unixsocket", str(socket)) as server:
        with redis.Redis.from_url(server.url) as r:
            r.execute_command("ACL", "SETUSER", "ann", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        yield Ways(server.port, port, ca.parent, socket)


async def said(url: str) -> tuple[str, str]:
    with pytest.raises(Unreachable) as caught:
        async with connected(url):
            pass
    return caught.value.message, caught.value.hint


async def test_they_lead_there(ways: Ways) -> None:
    login = f"ann:{quote(PASSWORD, safe='')}@"
    place = quote(str(ways.socket))
    for url in (
        f"redis://{login}127.0.0.1:{ways.plain}/0",
        f"rediss://{login}127.0.0.1:{ways.secure}/0?ssl_ca_certs={ways.ca}",
        f"rediss://localhost:{ways.secure}/0?ssl_ca_certs={ways.ca}&ssl_check_hostname=false",
        f"unix://{place}",
        f"unix://{login}{place}?db=3",
    ):
        assert redis_problem(url) == "" and "ann" not in redacted(url)
        async with connected(url) as r:
            assert await r.ping()
            assert await r.acl_whoami() == ("ann" if "ann" in url else "default")
    assert redacted(f"unix://{login}/run/r.sock?db=3") == "unix:///run/r.sock"
    assert address("unix:///run/r.sock?db=3") == "unix:/run/r.sock/3"


async def test_what_tls_needs_is_named(ways: Ways, tmp_path: Path) -> None:
    here = f"rediss://127.0.0.1:{ways.secure}/0"
    for url, words, way_out in (
        (here, "a certificate of a CA that this host does not know", "?ssl_ca_certs="),
        (f"{here}?ssl_ca_certs={tmp_path}/none.pem", f"{tmp_path}/none.pem (ssl_ca_certs) is not there", "every host"),
        (f"{here}?ssl_ca_certs={ways.folder}/client.pem", "client.pem did not sign", "the CA that signed it"),
        (f"{here}?ssl_ca_certs={ways.folder}/ca.key", "cannot be asked over TLS", "PEM files"),
        (
            f"rediss://localhost:{ways.secure}/0?ssl_ca_certs={ways.ca}",
            "a certificate that is not for localhost",
            "?ssl_check_hostname=false",
        ),
        (f"redis://127.0.0.1:{ways.secure}/0", "closed the connection", "write rediss://"),
        (f"rediss://127.0.0.1:{ways.plain}/0", "does not speak TLS there", "write redis://"),
    ):
        message, hint = await said(url)
        assert words in message and way_out in hint, (url, message, hint)


async def test_one_that_asks_for_a_certificate(tmp_path: Path) -> None:
    ca, port, options = tls(tmp_path / "tls", ask_clients=True)
    with running_server("redis", tmp_path / "data", *options):
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca}"
        message, hint = await said(url)
        assert "it wants a certificate of its clients" in message and "ssl_certfile=" in hint
        async with connected(f"{url}&ssl_certfile={ca.parent}/client.pem&ssl_keyfile={ca.parent}/client.key") as r:
            assert await r.ping()


async def test_sockets_and_odd_urls_are_named(ways: Ways, tmp_path: Path) -> None:
    here = f"127.0.0.1:{ways.plain}"
    for url, words, way_out in (
        (f"unix://{tmp_path}/none.sock", f"has no socket at {tmp_path}/none.sock", "unixsocket"),
        (f"redis://{here}/0?what=1", "has no option 'what'", "docs/redis.md"),
        (f"redis://ann:p/w@{here}/0", "is not a Redis URL", "/ as %2F"),
        (f"redis://ann:wrong@{here}/0", "refused the login", "percent-encoded"),
    ):
        message, hint = await said(url)
        assert words in message and way_out in hint, (url, message, hint)
        assert "p/w" not in message + hint and "ann" not in message + hint


@pytest.mark.parametrize("password", ["p/w", "p#w", "p?w", "p@s/w", "1/w"])
def test_a_login_that_must_be_encoded(password: str) -> None:
    assert "percent-encoded: / as %2F" in redis_problem(f"redis://ann:{password}@h:6379/0")
    assert redis_problem(f"redis://ann:{quote(password, safe='')}@h:6379/0") == ""


@pytest.mark.parametrize(
    "url", ["redis://h:1/0", "redis://u:p@s@h:1/0", "rediss://h:1/0?ssl_ca_certs=/a@b", "unix:///a@b"]
)
def test_a_login_that_is_not_cut(url: str) -> None:
    assert redis_problem(url) == ""
