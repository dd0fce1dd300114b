"""Which way a request goes, by the environment's variables."""

from __future__ import annotations

import pytest
from yarl import URL

from emp_orch.host import sessions
from emp_orch.host.proxies import for_engine, is_loopback, proxy_for

P = "http://proxy:3128"
ALL = {"http_proxy": P, "https_proxy": P, "all_proxy": P, "HTTP_PROXY": P, "HTTPS_PROXY": P, "ALL_PROXY": P}


def through(url: str, **environ: str) -> str:
    at = URL(url)
    return proxy_for(at.scheme, at.host or "", at.port, environ)[1]


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("http://example.com/x", {}, ""),
        ("http://example.com/x", {"http_proxy": P}, P),
        ("http://example.com/x", {"HTTP_PROXY": P}, P),
        ("https://example.com/x", {"http_proxy": P}, ""),
        ("https://example.com/x", {"HTTPS_PROXY": P}, P),
        ("https://example.com/x", {"all_proxy": P}, P),
        ("ws://example.com/x", {"http_proxy": P}, P),
        ("wss://example.com/x", {"https_proxy": P}, P),
        ("http://example.com", {"http_proxy": "proxy:3128"}, P),
        # Small letters first; what is set to nothing is no proxy, whatever all_proxy says.
        ("http://example.com", {"http_proxy": P, "HTTP_PROXY": "http://other:1"}, P),
        ("http://example.com", {"http_proxy": "", "all_proxy": P}, ""),
    ],
)
def test_variables(url: str, environ: dict[str, str], proxy: str) -> None:
    assert through(url, **environ) == proxy


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST.", "a.localhost", "[::1]", "0.0.0.0"]
)
def test_loopback_is_straight_whatever_is_set(host: str) -> None:
    assert is_loopback(URL(f"http://{host}:3331").host or "")
    assert through(f"http://{host}:3331/x", **ALL) == ""
    assert through(f"wss://{host}:3331/x", **ALL) == ""


@pytest.mark.parametrize(
    ("listed", "url", "straight"),
    [
        ("example.com", "http://example.com", True),
        ("example.com", "http://a.example.com", True),
        (".example.com", "http://a.example.com", True),
        ("*.example.com", "http://a.example.com", True),
        ("example.com", "http://badexample.com", False),
        ("EXAMPLE.com", "http://Example.COM.", True),
        ("a.org, example.com", "http://example.com", True),
        ("a.org example.com", "http://example.com", True),
        ("example.com:8080", "http://example.com:8080", True),
        ("example.com:8080", "http://example.com", False),
        ("*", "http://example.com", True),
        ("10.0.0.0/8", "http://10.2.3.4", True),
        ("10.0.0.0/8", "http://11.2.3.4", False),
        ("10.0.0.0/8", "http://example.com", False),
        ("10.1.1.1", "http://10.1.1.1:8000", True),
        ("1.1", "http://10.1.1.1", False),
        ("fd00::/8", "http://[fd00::1]", True),
        ("[fd00::1]:80", "http://[fd00::1]:80", True),
        ("fd00::1", "http://[fd00:0::1]", True),
        ("rubbish/x,,:", "http://example.com", False),
        ("", "http://example.com", False),
    ],
)
def test_no_proxy(listed: str, url: str, straight: bool) -> None:
    assert (through(url, no_proxy=listed, **ALL) == "") is straight
    assert (through(url, NO_PROXY=listed, http_proxy=P) == "") is straight


@pytest.mark.parametrize(
    "value", ["socks5://u:topsecret@proxy:1080", "http://", "http://[topsecret", "http://h:topsecret"]
)
def test_a_proxy_that_cannot_be_spoken_to_is_named_by_its_variable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(sessions.UnusableProxy, match="ALL_PROXY names no http proxy") as raised:
        sessions.way_to(URL("http://example.com"))
    assert "topsecret" not in str(raised.value)


def test_a_docker_command_reaches_its_engine_without_a_proxy() -> None:
    told = for_engine("tcp://gpu-b:2376", {"NO_PROXY": "x", "HTTPS_PROXY": P})
    assert told == {"NO_PROXY": "x,gpu-b", "no_proxy": "x,gpu-b", "HTTPS_PROXY": P}
    assert for_engine("", {"DOCKER_HOST": "tcp://gpu-c:2375"})["no_proxy"] == "gpu-c"
    assert for_engine("unix:///var/run/docker.sock", {"HTTPS_PROXY": P}) == {"HTTPS_PROXY": P}
    assert for_engine("ssh://gpu-a", {}) == {}
