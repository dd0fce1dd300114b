"""What is told as lost from two looks at the queue, and what is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from emp_orch.jobs.outcome.losses import Count, How, lost

BEFORE = Count(at_ms=1_000, since="a", looks=7, told="", seq=500, known=400, unfinished=142, forgotten=100)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # nothing is wrong
        ({"looks": 8}, None),
        ({"looks": 8, "seq": 600, "known": 500, "unfinished": 242}, None),
        ({"looks": 8, "unfinished": 0}, None),  # they ended
        ({"looks": 8, "unfinished": 0, "known": 0, "forgotten": 500}, None),  # ended, and were purged
        ({"looks": 8, "seq": 520, "known": 20, "unfinished": 20, "forgotten": 500}, None),  # and new ones came
        ({"looks": 7}, None),  # its last second was lost, in which no job was submitted
        # empty
        ({"since": "b", "looks": 1, "seq": 0, "known": 0, "unfinished": 0, "forgotten": 0}, (142, How.EMPTY)),
        ({"since": "b", "looks": 1, "seq": 9, "known": 9, "unfinished": 9, "forgotten": 0}, (142, How.EMPTY)),
        ({"since": "b", "looks": 1, "told": "b", "seq": 0, "known": 0, "unfinished": 0, "forgotten": 0}, None),
        # as it was earlier
        ({"looks": 3, "seq": 488, "known": 388, "unfinished": 380}, (12, How.OLDER)),
        ({"looks": 8, "seq": 499, "known": 399, "unfinished": 141}, (1, How.OLDER)),
        # the key was evicted or deleted, with the mark or without
        ({"looks": 8, "known": 0, "unfinished": 0}, (142, How.REMOVED)),
        ({"looks": 8, "seq": 503, "known": 3, "unfinished": 3}, (142, How.REMOVED)),
        ({"since": "b", "looks": 1, "known": 0, "unfinished": 0, "forgotten": 0}, (142, How.REMOVED)),
        ({"since": "b", "looks": 1, "forgotten": 0}, None),  # the mark alone
    ],
)
def test_what_is_lost(changes: dict[str, Any], expected: tuple[int, How] | None) -> None:
    found = lost(BEFORE, msgspec.structs.replace(BEFORE, at_ms=2_000, **changes))
    assert (None if found is None else (found.jobs, found.how)) == expected


def test_nothing_is_lost_where_all_had_ended() -> None:
    ended = msgspec.structs.replace(BEFORE, unfinished=0)
    assert lost(ended, msgspec.structs.replace(ended, since="b", looks=1, seq=0, known=0, forgotten=0)) is None


def test_the_words() -> None:
    found = lost(BEFORE, msgspec.structs.replace(BEFORE, at_ms=2_000, since="b", looks=1, seq=0, known=0))
    assert found is not None and found.words == "142 jobs are gone: Redis came back empty"
    assert "appendonly yes" in found.hint and found.seen_ms == 1_000
    assert msgspec.structs.replace(found, jobs=1).words.startswith("1 job is gone")
