"""What is seen of a pool whose engine is another than before: the boxes of both, and who is still at a former one.

A box that the engine of now lists too stays, whatever else changed: the change moved nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from emp_orch.fleet.model.fleet import MachineId, Pool
from emp_orch.fleet.model.pools import Box, BoxState, SeenPool
from emp_orch.fleet.pools.standing import APPEARS_MS

# How long an engine may take to show a box that it was asked for last, before it counts as one without.
APPEARS_S = APPEARS_MS / 1000


class Looked(Struct, frozen=True, kw_only=True):
    """A look at an engine that ended at `ended_s` and began at `began_s`, in seconds of one clock; 0: none yet."""

    seen: SeenPool = SeenPool()
    began_s: float = 0.0
    ended_s: float = 0.0


def settings_of(pool: Pool) -> str:
    """The same text for the same engine, asked in the same way."""
    return msgspec.json.encode([pool.provider, pool.options], order="deterministic").decode()


def joined(
    now: Looked | None, formers: Sequence[Looked], members: Iterable[MachineId], since: Mapping[MachineId, float]
) -> tuple[SeenPool, dict[MachineId, float]]:
    """A pool as its engine of now and the `formers` show it, and since when only these show whose boxes; `since`: that
    before. `now` None: it has none, its boxes are started by somebody else. Of `members` that may be at an engine that
    did not answer, nothing is known. Where the engine of now did not answer, nobody is said to be at a former one.
    """
    if not formers or (now is not None and now.seen.boxes is None):
        return (SeenPool() if now is None else now.seen), {}
    boxes = {box.member_id: box for box in (now.seen.boxes or () if now is not None else ())}
    elsewhere: dict[MachineId, Box] = {}
    since_s: dict[MachineId, float] = {}
    for looked in formers:
        for box in looked.seen.boxes or ():
            if box.member_id in boxes:
                continue
            elsewhere[box.member_id] = box
            since_s[box.member_id] = since.get(box.member_id, looked.ended_s)
    boxes |= elsewhere
    unanswered = [looked for looked in formers if looked.seen.boxes is None]
    words = next((f"its former engine: {f.seen.error}" for f in unanswered if f.seen.error), "")
    if unanswered or now is None:
        unknown = (i for i in members if i not in boxes)
        boxes |= {i: Box(member_id=i, state=BoxState.UNKNOWN, words=words) for i in unknown}
    found = tuple(sorted(boxes.values(), key=lambda b: b.member_id))
    # A box that was asked for after the engine of now was looked at is not at a former one for that.
    former = sorted(i for i, seen_s in since_s.items() if now is None or now.began_s > seen_s)
    return SeenPool(boxes=found, error=words, former=tuple(former)), since_s


def is_over(now: Looked | None, former: Looked, retired_s: float) -> bool:
    """Whether a former engine has nothing more of its own, long enough after it was asked for a box last."""
    if former.seen.boxes is None or former.ended_s - retired_s < APPEARS_S:
        return False
    if now is None:
        return not former.seen.boxes
    if now.seen.boxes is None:
        return False
    return {b.member_id for b in former.seen.boxes} <= {b.member_id for b in now.seen.boxes}
