"""A real primary with its replica, watched by three real sentinels."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from support.redis.server import Server, eventually, free_port, running_server, server_binary
from support.redis.tls import tls

NAME = "mymaster"
DOWN_AFTER_MS = 2_000


class Watched:
    """`servers[0]` is the primary at first. With `ca`, clients need TLS; the tests' own looks go beside it."""

    def __init__(self, servers: dict[int, Server], sentinels: dict[int, int], password: str, ca: Path | None) -> None:
        self._known = servers  # by the port that the sentinels name
        self.servers = list(servers.values())
        self.sentinels = list(sentinels.values())
        self._password = password or None
        places = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        scheme, trusts = ("rediss", f"?ssl_ca_certs={ca}") if ca else ("redis", "")
        self.url = f"{scheme}+sentinel://{places}/{NAME}/0{trusts}"

    def primary_port(self) -> int:
        """As the first sentinel that answers says: one that clients connect to."""
        for port in self.sentinels:
            with redis.Redis(port=port, password=self._password) as r, contextlib.suppress(redis.RedisError):
                return int(r.sentinel_get_master_addr_by_name(NAME)[1])
        return 0

    def primary(self) -> Server:
        return self._known[self.primary_port()]

    def failed_over_from(self, old: Server) -> Server:
        """The new primary, once it takes writes."""
        eventually(lambda: self.primary_port() and self.primary() is not old, within_s=90)
        found = self.primary()
        with redis.Redis(port=found.port) as r:
            eventually(lambda: r.info("replication")["role"] == "master", within_s=60)
        return found

    def in_step(self) -> bool:
        """Whether each sentinel knows the others and the replica, and the replica follows."""
        for port in self.sentinels:
            with redis.Redis(port=port, password=self._password) as r:
                state = r.sentinel_masters()[NAME]
            if (state["num-other-sentinels"], state["num-slaves"]) != (len(self.sentinels) - 1, 1):
                return False
        primary = self.primary()
        (other,) = (server for server in self.servers if server is not primary)
        with redis.Redis(port=other.port) as r:
            return bool(r.info("replication").get("master_link_status") == "up")


@contextmanager
def watched_by_sentinels(
    folder: Path, *, options: tuple[str, ...] = (), password: str = "", by_tls: bool = False
) -> Iterator[Watched]:
    """All up and in step. `password` is the sentinels'."""
    with ExitStack() as stack:
        ca, _, words = tls(folder / "tls") if by_tls else (None, 0, [])
        ways = [_Tls(tuple(words[2:])) if by_tls else None for _ in range(5)]
        first = stack.enter_context(running_server("redis", folder / "a", *options, *_listens(ways[0])))
        known = {ways[0].port if ways[0] else first.port: first}
        follows = ("--replicaof", "127.0.0.1", str(next(iter(known))))
        second = stack.enter_context(running_server("redis", folder / "b", *options, *_listens(ways[1]), *follows))
        known[ways[1].port if ways[1] else second.port] = second
        sentinels: dict[int, int] = {}
        for n, way in enumerate(ways[2:]):
            port = stack.enter_context(_sentinel(folder / f"s{n}", next(iter(known)), password, _listens(way)))
            sentinels[way.port if way else port] = port
        made = Watched(known, sentinels, password, ca)
        eventually(made.in_step, within_s=60)
        yield made


class _Tls:
    """A port for TLS, and the certificates; servers and sentinels speak so among themselves, too."""

    def __init__(self, files: tuple[str, ...]) -> None:
        self.port = free_port()
        self.options = ("--tls-port", str(self.port), *files, "--tls-replication", "yes")


def _listens(way: _Tls | None) -> tuple[str, ...]:
    return way.options if way else ()


@contextmanager
def _sentinel(folder: Path, primary: int, password: str, options: tuple[str, ...]) -> Iterator[int]:
    folder.mkdir(parents=True)
    port = free_port()
    conf = folder / "sentinel.conf"
    pairs = zip(options[::2], options[1::2], strict=True)
    conf.write_text(
        "".join(f"{name.removeprefix('--')} {value}\n" for name, value in pairs)
        + f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 20000\n"
        + (f'requirepass "{password}"\n' if password else "")
    )
    with (folder / "log").open("wb") as log:
        # The very program that is also installed as redis-sentinel.
        process = subprocess.Popen([server_binary("redis"), str(conf), "--sentinel"], stdout=log, stderr=log)
    try:
        with redis.Redis(port=port, password=password or None) as r:

            def answers() -> bool:
                with contextlib.suppress(redis.ConnectionError):
                    return bool(r.ping())
                return False

            eventually(answers, within_s=60)
        yield port
    finally:
        process.kill()
        process.wait()
