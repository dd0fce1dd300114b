"""A disk that was full, known by the words of whoever met it."""

from __future__ import annotations

import pytest

from emp_orch.jobs.document.model import JobError
from emp_orch.jobs.outcome.full_disk import folder_in, is_of_full_disk, told


@pytest.mark.parametrize(
    ("said", "folder"),
    [
        ("SaveImage (node 9): [Errno 28] No space left on device", ""),
        ("SaveImage (node 9): [Errno 28] No space left on device: '/srv/out/a b/x.png'", "/srv/out/a b"),
        ("LoraSave (node 3): [Errno 122] Disk quota exceeded: '/home/u/x.safetensors'", "/home/u"),
        ("the service answered 500: SafetensorError: I/O error: No space left on device (os error 28)", ""),
        ("(sqlite3.OperationalError) database or disk is full", ""),
        ("x.png was not saved: no space left in file:///srv/artifacts", "/srv/artifacts"),
        ("Error: ENOSPC: no space left on device, write", ""),
    ],
)
def test_known_by_its_words(said: str, folder: str) -> None:
    error = JobError(message=said, retryable=False, detail={"node_id": "9"})
    assert is_of_full_disk(error)
    assert folder_in(error) == folder
    assert told(error, machine="m", folder=folder) == JobError(
        message=f"m has no space left{f' in {folder}' if folder else ''}: {said}", retryable=True, detail=error.detail
    )


@pytest.mark.parametrize(
    "said", ["the prompt has no outputs", "CUDA out of memory", "no space in the queue", "[Errno 2] No such file"]
)
def test_other_failures_are_others(said: str) -> None:
    assert not is_of_full_disk(JobError(message=said))


def test_a_far_store_is_on_no_machine() -> None:
    error = JobError(message="x.png was not saved: no space left in s3://bucket/out", retryable=True)
    assert folder_in(error) == ""
    assert told(error, machine="m", folder="/tmp") == error
