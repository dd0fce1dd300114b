"""What the operating system refuses is told by file and reason, and is no fault of emp's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from emp_orch.cli.output.refused import refusal
from emp_orch.errors import Exit


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EISDIR, "EMP_DEBUG"),
    ],
)
def test_every_refusal_names_the_file_the_reason_and_a_way_out(number: int, says: str, tmp_path: Path) -> None:
    told = refusal(OSError(number, os.strerror(number), str(tmp_path / "x")))
    assert told.message == f"{tmp_path / 'x'}: {os.strerror(number)}"
    assert says in told.hint
    assert told.exit_code is Exit.FAILED


def test_what_does_not_answer_has_the_code_of_that() -> None:
    told = refusal(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))
    assert told.exit_code is Exit.UNREACHABLE
    assert "refused" in told.message


def test_one_without_words_is_told_by_its_name() -> None:
    assert refusal(OSError()).message == "OSError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_the_owner_is_named(tmp_path: Path) -> None:
    os.chown(tmp_path, 4321, 4321)
    told = refusal(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "gone" / "x")))
    assert told.message.endswith("x: Permission denied: it is uid 4321's")
    assert told.hint == "run emp as uid 4321"
