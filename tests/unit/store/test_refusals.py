"""What a Redis says that refuses, in words."""

from __future__ import annotations

import pytest
from redis import exceptions as rexc

from emp_orch.store.redis.refusals import refusal_of

DISK = "takes no writes, because it cannot write to its disk (MISCONF)"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("MISCONF Errors writing to the AOF file: No space left on device", f"{DISK}: No space left on device"),
        (
            "MISCONF Errors writing to the AOF file: Disk quota exceeded script: 5c8f, on @user_script:20.",
            f"{DISK}: Disk quota exceeded",
        ),
        ("MISCONF Redis is configured to save RDB snapshots, but it is unable to persist on disk.", DISK),
    ],
)
def test_a_disk_that_is_full(said: str, words: str) -> None:
    found = refusal_of(rexc.ResponseError(said))
    assert found is not None and found.says == words and "free space" in found.hint
