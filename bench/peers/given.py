"""What the bench gives the processes it starts, through their environment."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from bench.peers.marks import Marks

REDIS = "EMP_BENCH_REDIS"
MARKS = "EMP_BENCH_MARKS"

# Files in the folder that MARKS names.
BEGAN = "began"
ENQUEUED = "enqueued"


def url() -> str:
    return os.environ[REDIS]


def host_port() -> tuple[str, int]:
    parts = urlsplit(url())
    return parts.hostname or "127.0.0.1", parts.port or 6379


@cache
def marks(name: str) -> Marks:
    return Marks(Path(os.environ[MARKS], name))


def began(job: int) -> None:
    """The job's function runs: this is all that a no-op job does."""
    marks(BEGAN).stamp(job)
