"""URLs of a Redis, with sentinels or without: taken apart, shown without secrets, given another login or hosts."""

from __future__ import annotations

import pytest

from emp_orch.control.checks.addresses import _by_name
from emp_orch.manifest.checks.addresses import redis_problem
from emp_orch.store.redis.client import address, redacted
from emp_orch.urls import hosts_of, passwords_of, sentinel_url, user_of, with_hosts, with_login, without_login

SENTINELS = "rediss+sentinel://u:p%2Fw@[::1]:1,B.example,10.0.0.1:3/my/2?sentinel_password=s%40t&ssl_ca_certs=/c.pem"
PLAIN = "redis://u:p%2Fw@127.0.0.1:6380/1"


def test_the_parts_of_one_with_sentinels() -> None:
    found = sentinel_url(SENTINELS)
    assert found is not None
    assert [(p.host, p.port) for p in found.sentinels] == [("::1", 1), ("b.example", 26379), ("10.0.0.1", 3)]
    assert (found.name, found.database, found.username, found.password, found.tls) == ("my", "2", "", "s@t", True)
    assert found.server == "rediss://u:p%2Fw@[::1]:1/2?ssl_ca_certs=%2Fc.pem"
    assert sentinel_url(PLAIN) is None
    least = sentinel_url("redis+sentinel://a/my?sentinel_tls=yes")
    assert least is not None and (least.database, least.tls, least.server) == ("0", True, "redis://a:26379/0")


def test_no_secret_is_shown() -> None:
    for shown in (redacted(SENTINELS), address(SENTINELS), without_login(SENTINELS)):
        assert not any(secret in shown for secret in ("p%2Fw", "p/w", "s%40t", "s@t"))
    assert redacted(SENTINELS) == "rediss+sentinel://***@[::1]:1,b.example:26379,10.0.0.1:3/my/2"
    assert without_login(SENTINELS) == "rediss+sentinel://[::1]:1,B.example,10.0.0.1:3/my/2?ssl_ca_certs=/c.pem"
    assert without_login("redis://h/0?password=x&ssl_ca_certs=/c") == "redis://h/0?ssl_ca_certs=/c"
    assert without_login(PLAIN) == "redis://127.0.0.1:6380/1"
    assert set(passwords_of(SENTINELS)) == {"p%2Fw", "p/w", "s%40t", "s@t"}
    assert set(passwords_of(PLAIN)) == {"p%2Fw", "p/w"} and passwords_of("redis://[") == ()


def test_the_order_of_sentinels_makes_no_other_redis() -> None:
    assert address("redis+sentinel://a:1,b:2/my/0") == address("redis+sentinel://x:y@b:2,a:1/my") != ""
    assert address("redis+sentinel://a:1,b:2/my/0") != address("redis+sentinel://a:1,b:2/my/1")


def test_another_login_and_other_hosts() -> None:
    given = with_login(SENTINELS, "emp:f:m", "q/r")
    assert given.startswith("rediss+sentinel://emp%3Af%3Am:q%2Fr@[::1]:1,B.example,10.0.0.1:3/my/2?sentinel_password=")
    assert with_login("redis://h/0?username=u&password=x&ssl_ca_certs=/c", "", "q") == "redis://:q@h/0?ssl_ca_certs=/c"
    assert user_of(given) == "emp:f:m" and user_of(PLAIN) == "u" and user_of("redis://h") == ""
    assert hosts_of(SENTINELS) == ("::1", "b.example", "10.0.0.1") and hosts_of("unix:///s") == ()
    assert with_hosts("redis+sentinel://p@a:1,b:2/my/0?x=y", str.upper) == "redis+sentinel://p@A:1,B:2/my/0?x=y"
    assert _by_name("redis+sentinel://:p@127.0.0.1:1,10.0.0.1:2/my/0") == (
        "redis+sentinel://:p@host.docker.internal:1,10.0.0.1:2/my/0"
    )
    assert _by_name(PLAIN) == "redis://u:p%2Fw@host.docker.internal:6380/1"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://a:26379,b:26379/mymaster/0", ""),
        ("rediss+sentinel://u:p@a,b/mymaster?sentinel_password=x%40y", ""),
        ("redis+sentinel://a:26379,b:26379", "expected the name that the sentinels give the primary"),
        ("redis+sentinel:///mymaster/0", "expected sentinels as HOST:PORT,HOST:PORT"),
        ("redis+sentinel://a:26379,/mymaster/0", "expected sentinels as HOST:PORT,HOST:PORT"),
        ("redis+sentinel://a:0/mymaster/0", "each with a port from 1 to 65535"),
        ("redis+sentinel://a:x/mymaster/0", "each with a port from 1 to 65535"),
        ("redis+sentinel://a/mymaster/zero", "expected a database number after the primary's name"),
        ("redis+sentinel://a/mymaster/0?sentinel_tls=perhaps", "expected yes or no for sentinel_tls"),
        ("redis+sentinel://a/mymaster/0?sentinel_pasword=x", "expected no option 'sentinel_pasword'"),
        ("redis+sentinel://u:p/w@a/mymaster/0", "expected a password whose special characters are percent-encoded"),
    ],
)
def test_what_is_wrong_is_said_without_the_login(url: str, words: str) -> None:
    found = redis_problem(url)
    assert (found == "") if not words else (words in found)
    assert "p/w" not in found and "=x" not in found
