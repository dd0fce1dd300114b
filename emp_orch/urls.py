"""URLs that may hold a login."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def without_login(url: str) -> str:
    """`url` with user and password left out: it leads to the same place."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def password_of(url: str) -> str:
    """The password in `url`; empty when it holds none."""
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""
