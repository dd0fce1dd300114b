"""Which hosts the URLs of inputs may name: `jobs.inputs.hosts` of emp.yaml."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

SETTING = "jobs.inputs.hosts"


def host_of(url: str) -> str:
    """The host that a URL names, in small letters and without a last dot; '' when it names none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def refusal(url: str, hosts: Sequence[str]) -> str:
    """Why the URL may not be fetched; '' when its host is one of `hosts`. Where that leads is another question."""
    host = host_of(url)
    if any(_fits(host, pattern) for pattern in hosts):
        return ""
    if not hosts:
        return f"no URL may be named: add {host} to {SETTING} in emp.yaml, or upload the file"
    return f"{host or 'its host'} is not one of {SETTING}, which are {', '.join(hosts[:8])}"


def is_named(host: str, hosts: Sequence[str]) -> bool:
    """Whether `host` stands there in full: only then it may have an address that is not public."""
    return host in hosts


def is_public(address: str) -> bool:
    """Whether an IP address can be anybody's: not this host's, a private network's, a link's, a cloud's metadata."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # An IPv4 address inside of an IPv6 one is where the connection ends.
    for inner in (getattr(ip, "ipv4_mapped", None), getattr(ip, "sixtofour", None), _nat64(ip)):
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _nat64(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if isinstance(ip, ipaddress.IPv6Address) and ip in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return None


def _fits(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return bool(host) and host == pattern
