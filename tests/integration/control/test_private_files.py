"""Files that several threads of one process write: operations on one machine run side by side, each with secrets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emp_orch.settings import write_private


def test_writers_side_by_side_leave_a_whole_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    contents = [bytes([n]) * (4096 * n) for n in range(1, 9)]

    def write_often(content: bytes) -> None:
        for _ in range(20):
            write_private(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write_often, contents))
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600
