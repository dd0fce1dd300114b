"""Which proxy the environment names for an address: http_proxy, https_proxy, all_proxy and no_proxy, in both cases.

As curl and Python read them, with two additions: nothing on loopback ever goes through a proxy, and no_proxy takes
networks (10.0.0.0/8). Only for what is outside the fleet is that asked (`sessions`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

# Before these, `://` is missing in many an environment: `proxy:3128`.
_DEFAULT_SCHEME = "http"
_PLAIN = {"ws": "http", "wss": "https"}


def proxy_for(scheme: str, host: str, port: int | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """The name of the variable that holds and the URL of the proxy for `scheme://host:port`; two empty texts: none."""
    if is_loopback(host) or _excepted(host, port, _first(environ, "no_proxy")[1]):
        return "", ""
    for variable in (f"{_PLAIN.get(scheme, scheme)}_proxy", "all_proxy"):
        name, value = _first(environ, variable)
        if name:
            return (name, value if "://" in value else f"{_DEFAULT_SCHEME}://{value}") if value else ("", "")
    return "", ""


def is_loopback(host: str) -> bool:
    """Whether `host`, as it stands in a URL, is this host's own loopback."""
    name = host.casefold().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def for_engine(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a docker command that speaks with the engine at `url`, empty for the one that DOCKER_HOST names: a
    machine's engine is no outside, and is reached without a proxy."""
    address = urlsplit(url or environ.get("DOCKER_HOST", ""))
    if address.scheme != "tcp" or not address.hostname:
        return dict(environ)
    listed = ",".join(filter(None, (_first(environ, "no_proxy")[1], address.hostname)))
    return {**environ, "no_proxy": listed, "NO_PROXY": listed}


def _first(environ: Mapping[str, str], variable: str) -> tuple[str, str]:
    """Name and value of the variable, small letters first; one that is set to nothing counts."""
    for name in (variable, variable.upper()):
        if name in environ:
            return name, environ[name].strip()
    return "", ""


def _excepted(host: str, port: int | None, listed: str) -> bool:
    name = host.casefold().rstrip(".")
    return any(_matches(entry, name, port) for entry in listed.casefold().replace(",", " ").split())


def _matches(entry: str, name: str, port: int | None) -> bool:
    if entry == "*":
        return True
    address = _address(name)
    if "/" in entry and address is not None:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    if (exact := _address(entry)) is not None:
        return exact == address
    head, separator, tail = entry.rpartition(":")
    if separator and tail.isdecimal():
        return port == int(tail) and _matches(head, name, None)
    suffix = entry.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(suffix) and address is None and (name == suffix or name.endswith(f".{suffix}"))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
