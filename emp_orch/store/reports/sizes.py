"""How much of the reports may be read: a look costs what a fleet costs, whoever wrote what beside it.

Reports of a healthy fleet are read all at once. Where a document is too large, or where there are too many, that is
found out in Redis, and only the others are fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from emp_orch.fleet.model.observed import Malformed
from emp_orch.store.redis.client import Client, ReadOnlyRedis
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

# Of machines, and of workers, at once: twice what emp is measured with. More are read a part at a time.
MAX_DOCUMENTS = 20_000
# A hundred times what a machine of eight GPUs has to say.
MAX_REPORT_BYTES = 256 * 1024
MAX_BYTES = 128 * 1024**2
# emp's ids are far shorter.
MAX_ID_BYTES = 500
# Too large ones that are named.
MAX_NAMED = 1_000

_WEIGH = script("reports/weigh")
_LARGE = script("reports/large")


class Weighed(Struct, frozen=True, kw_only=True):
    """Of one hash. `ids`: those that may be read, where not all may be at once; else None."""

    large: dict[str, int]
    ids: tuple[str, ...] | None


async def weigh(r: Client, keys: Keys) -> tuple[Weighed, Weighed]:
    """The reports of machines, and of workers. A command that only reads runs no script: it looks once, and takes what
    comes. Raises what redis-py raises when Redis is away."""
    if isinstance(r, ReadOnlyRedis):
        return Weighed(large={}, ids=None), Weighed(large={}, ids=None)
    pairs = (keys.machines, keys.machines_seen, keys.workers, keys.workers_seen)
    limits = (MAX_DOCUMENTS, MAX_REPORT_BYTES, MAX_ID_BYTES, MAX_NAMED, MAX_BYTES)
    machines, workers = [_weighed(one) for one in await r.eval(_WEIGH, len(pairs), *pairs, *limits)]
    return machines, workers


def _weighed(answer: Any) -> Weighed:
    all_, large, ids = answer
    return Weighed(large=_pairs(large), ids=None if all_ else tuple(ids))


def _pairs(flat: Sequence[Any]) -> dict[str, int]:
    return {str(i): int(n) for i, n in zip(flat[::2], flat[1::2], strict=True)}


async def large_ones(r: Client, documents: str, ids: Sequence[str]) -> dict[str, int]:
    """Those of `ids` whose documents are too large to be read, and how large they are."""
    if not ids or isinstance(r, ReadOnlyRedis):
        return {}
    return _pairs(await r.eval(_LARGE, 1, documents, MAX_REPORT_BYTES, *ids))


def too_large(kind: str, large: dict[str, int], seen: dict[str, int]) -> list[Malformed]:
    return [
        Malformed(
            kind=kind,
            id=subject,
            error=f"its report has {size} bytes, and of one at most {MAX_REPORT_BYTES}, of all {MAX_BYTES} are read",
            seen_ms=seen.get(subject, 0),
        )
        for subject, size in sorted(large.items())
    ]
