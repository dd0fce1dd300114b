"""URLs that may hold a login."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

SENTINEL_PORT = 26379
# What a query of a Redis URL may hold that nobody may see.
_OF_SERVER = frozenset({"username", "password"})
_LOGIN = _OF_SERVER | {"sentinel_username", "sentinel_password"}
_OF_SENTINELS = frozenset({"sentinel_username", "sentinel_password", "sentinel_tls"})
_SENTINEL = re.compile(r"(rediss?)\+sentinel://(?:([^/?#]*)@)?([^/?#@]*)(/[^?#]*)?(?:\?([^#]*))?\Z")
_YES_NO = {"yes": True, "no": False, "true": True, "false": False}


class Endpoint(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class SentinelUrl(NamedTuple):
    """What redis+sentinel://LOGIN@HOST:PORT,…/NAME/DATABASE?OPTIONS says. `login` and `options` are the servers'."""

    scheme: str
    login: str
    sentinels: tuple[Endpoint, ...]
    name: str
    database: str
    options: tuple[tuple[str, str], ...]
    username: str = ""
    password: str = ""
    tls: bool = False

    @property
    def server(self) -> str:
        """The URL of a server, whose place is to be asked for: a sentinel's stands there."""
        login = f"{self.login}@" if self.login else ""
        query = urlencode(self.options)
        return f"{self.scheme}://{login}{self.sentinels[0]}/{self.database}{f'?{query}' if query else ''}"

    @property
    def shown(self) -> str:
        """Without any login."""
        login = "***@" if self.login else ""
        return f"{self.scheme}+sentinel://{login}{','.join(map(str, self.sentinels))}/{self.name}/{self.database}"


def is_sentinel(url: str) -> bool:
    return url.startswith(("redis+sentinel:", "rediss+sentinel:"))


def sentinel_url(url: str) -> SentinelUrl | None:
    """The parts of a redis+sentinel:// URL; None for another one. Raises ValueError, which shows no login."""
    if not is_sentinel(url):
        return None
    found = _SENTINEL.match(url)
    if found is None:
        raise ValueError("expected sentinels as HOST:PORT,HOST:PORT in the URL")
    scheme, login, places, path, query = found.groups(default="")
    name, _, database = path.strip("/").partition("/")
    if not name:
        raise ValueError("expected the name that the sentinels give the primary, after their addresses in the URL")
    if database and not database.isdecimal():
        raise ValueError("expected a database number after the primary's name in the URL")
    said = parse_qsl(query, keep_blank_values=True)
    own = dict(pair for pair in said if pair[0] in _OF_SENTINELS)
    tls = own.get("sentinel_tls", "yes" if scheme == "rediss" else "no").lower()
    if tls not in _YES_NO:
        raise ValueError("expected yes or no for sentinel_tls in the URL")
    if unknown := [key for key, _ in said if key.startswith("sentinel_") and key not in _OF_SENTINELS]:
        raise ValueError(f"expected no option {unknown[0]!r} in the URL: there are {', '.join(sorted(_OF_SENTINELS))}")
    return SentinelUrl(
        scheme=scheme,
        login=login,
        sentinels=tuple(_endpoint(place) for place in places.split(",")),
        name=unquote(name),
        database=database or "0",
        options=tuple(pair for pair in said if pair[0] not in _OF_SENTINELS),
        username=own.get("sentinel_username", ""),
        password=own.get("sentinel_password", ""),
        tls=_YES_NO[tls],
    )


def _endpoint(text: str) -> Endpoint:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0 or ("]" not in text and ":" in text and port is None):
        raise ValueError("expected sentinels as HOST:PORT,HOST:PORT in the URL, each with a port from 1 to 65535")
    return Endpoint(host, port or SENTINEL_PORT)


def hosts_of(url: str) -> tuple[str, ...]:
    """The hosts that a Redis URL names; none when it is no such thing, or a socket."""
    try:
        if (found := sentinel_url(url)) is not None:
            return tuple(place.host for place in found.sentinels)
        host = urlsplit(url).hostname
    except ValueError:
        return ()
    return (host,) if host else ()


def with_hosts(url: str, renamed: Callable[[str], str]) -> str:
    """`url` with each of its hosts as `renamed` says."""
    if (found := sentinel_url(url)) is not None:
        places = ",".join(str(Endpoint(renamed(place.host), place.port)) for place in found.sentinels)
        return urlunsplit(_split(url)._replace(netloc=f"{found.login}@{places}" if found.login else places))
    parts = urlsplit(url)
    host = parts.hostname or ""
    if renamed(host) == host:
        return url
    login, at, _ = parts.netloc.rpartition("@")
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{login}{at}{renamed(host)}{port}"))


def _split(url: str) -> SplitResult:
    """As urlsplit, which takes several addresses for none."""
    found = _SENTINEL.match(url)
    if found is None:
        return urlsplit(url)
    scheme, login, places, path, query = found.groups(default="")
    return SplitResult(f"{scheme}+sentinel", f"{login}@{places}" if login else places, path, query, "")


def with_login(url: str, user: str, password: str) -> str:
    """`url` with another login at the server, and not the one that it had; the sentinels' stays."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"
    return urlunsplit(parts._replace(netloc=netloc, query=_without(parts.query, _OF_SERVER)))


def without_login(url: str) -> str:
    """`url` with every user and password left out: it leads to the same place."""
    parts = _split(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=_without(parts.query, _LOGIN)))


def _without(query: str, names: frozenset[str]) -> str:
    pairs = query.split("&")
    kept = [pair for pair in pairs if pair.partition("=")[0] not in names]
    return query if len(kept) == len(pairs) else "&".join(kept)


def database_of(url: str) -> int:
    """The number of the database that a client of `url` uses. Source: redis-py, connection.parse_url."""
    parts = _split(url)
    said = dict(parse_qsl(parts.query)).get("db", "")
    path = "" if parts.scheme == "unix" else parts.path.strip("/").rpartition("/")[2]
    number = said or path
    return int(number) if number.isdecimal() else 0


def user_of(url: str) -> str:
    """The server's user in `url`; empty when it names none."""
    parts = _split(url)
    return unquote(parts.netloc.rpartition("@")[0].partition(":")[0])


def password_of(url: str) -> str:
    """The password in `url`; empty when it holds none."""
    try:
        parts = _split(url)
    except ValueError:
        return ""
    return parts.netloc.rpartition("@")[0].partition(":")[2]


def passwords_of(url: str) -> tuple[str, ...]:
    """All that is secret in `url`, as it stands there and as it is meant."""
    try:
        query = _split(url).query
    except ValueError:
        return ()
    raw = [password_of(url)]
    raw += [pair.partition("=")[2] for pair in query.split("&") if pair.partition("=")[0].endswith("password")]
    return tuple(dict.fromkeys(text for one in raw if one for text in (one, unquote(one))))


# What is special in a URL, and how it is written in a user or a password.
ENCODED = "/ as %2F, # as %23, ? as %3F, @ as %40, : as %3A, % as %25"


def login_is_cut(url: str) -> bool:
    """Whether the login in `url` seems to hold a `/`, `#` or `?` as such, which end the part where it stands."""
    _, _, rest = url.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after, at, _ = rest[len(place) :].rpartition("@")
    return at != "" and ":" in place and "=" not in after  # a file named in an option may hold an @
