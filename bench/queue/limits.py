"""What a plain Redis does on this machine, by redis-benchmark: no queue here can be faster."""

from __future__ import annotations

import re
import shutil
import subprocess

from msgspec import Struct

from bench.queue.server import BenchRedis

_RATE = re.compile(r"([\d.]+) requests per second")
_PAYLOAD = "x" * 100
_PUSH = "return redis.call('LPUSH', KEYS[1], ARGV[1])"
_COUNT = {1: 20_000, 50: 100_000}


class Limit(Struct, frozen=True, kw_only=True):
    command: str
    clients: int
    per_s: float


def measure(redis: BenchRedis, part: float) -> tuple[Limit, ...]:
    """LPUSH, and EVALSHA of one LPUSH, by 1 and by 50 clients. Empty where redis-benchmark is not installed."""
    program = shutil.which("redis-benchmark")
    if program is None:
        return ()
    redis.clear()
    sha = str(redis.client.script_load(_PUSH))
    commands = {
        "LPUSH": ("LPUSH", "bench:list", _PAYLOAD),
        "EVALSHA of one LPUSH": ("EVALSHA", sha, "1", "bench:list", _PAYLOAD),
    }
    found = []
    for name, argv in commands.items():
        for clients, count in _COUNT.items():
            asked = [program, "-p", str(redis.port), "-q", "-c", str(clients), "-n", str(max(100, int(count * part)))]
            done = subprocess.run([*asked, *argv], capture_output=True, text=True, check=True, timeout=120)
            rates = _RATE.findall(done.stdout)
            if not rates:
                raise SystemExit(f"bench: redis-benchmark said {done.stdout[-200:]!r}")
            found.append(Limit(command=name, clients=clients, per_s=float(rates[-1])))
    redis.clear()
    return tuple(found)
