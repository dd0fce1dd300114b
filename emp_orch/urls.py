"""URLs that may hold a login."""

from __future__ import annotations

import re
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


# What is special in a URL, and how it is written in a user or a password.
ENCODED = "/ as %2F, # as %23, ? as %3F, @ as %40, : as %3A, % as %25"


def login_is_cut(url: str) -> bool:
    """Whether the login in `url` seems to hold a `/`, `#` or `?` as such, which end the part where it stands."""
    _, _, rest = url.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after, at, _ = rest[len(place) :].rpartition("@")
    return at != "" and ":" in place and "=" not in after  # a file named in an option may hold an @
