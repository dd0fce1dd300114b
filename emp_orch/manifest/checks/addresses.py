"""Addresses in emp.yaml: what is wrong with one, without showing it, as it may hold a password."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from emp_orch.urls import ENCODED, is_sentinel, login_is_cut, sentinel_url

_SOME_PORT = "expected a port from 1 to 65535 and a plain host in the URL"


def redis_problem(url: str) -> str:
    """What is wrong with a Redis URL; empty when nothing is."""
    if login_is_cut(url):
        return f"expected a password whose special characters are percent-encoded: {ENCODED}"
    if is_sentinel(url):
        return _sentinel_problem(url)
    parts = _split(url)
    if parts is None:
        return _SOME_PORT
    if parts.scheme == "unix":
        whole = parts.path.startswith("/") and not parts.hostname
        return "" if whole else "expected the whole path of a socket in the URL"
    if not parts.hostname:
        return "expected a host in the URL"
    if parts.port == 0:
        return "expected a port from 1 to 65535 in the URL"
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        return "expected a database number after the host in the URL"
    return ""


def _sentinel_problem(url: str) -> str:
    try:
        sentinel_url(url)
    except ValueError as e:
        return str(e)
    return ""


def docker_problem(url: str) -> str:
    """What is wrong with the address of a Docker Engine; empty when nothing is. The schema knows its scheme."""
    if url.startswith("unix://"):
        return ""
    parts = _split(url)
    if parts is None or parts.port == 0:
        return _SOME_PORT
    if not parts.hostname:
        return "expected a host in the URL"
    if parts.password is not None:
        return "expected a URL without password"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return "expected nothing after the host and its port"
    if parts.scheme == "tcp" and parts.username is not None:
        return "expected no user in a tcp:// URL"
    # What begins so would be an option to ssh.
    if parts.hostname.startswith("-") or (parts.username or "").startswith("-"):
        return "expected a user and a host that do not begin with -"
    return ""


def _split(url: str) -> SplitResult | None:
    """The parts of `url`; None when its host or port is no such thing."""
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts
