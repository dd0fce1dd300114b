"""Which emp a process runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from emp_orch import builds
from emp_orch.resources import MODULES

LOADS = """
import sys
import emp_orch.machine.supervision.extension
print(*(m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "emp_orch"), sep="\\n")
"""


def test_all_that_a_supervisord_loads_counts() -> None:
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert {str(Path(p).relative_to(MODULES)) for p in done.stdout.split()} == set(builds.IN_SUPERVISORD)


def test_another_file_is_another_digest(tmp_path: Path) -> None:
    for name in builds.IN_SUPERVISORD:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODULES / name, tmp_path / name)
    assert builds.supervision_digest(tmp_path) == builds.supervision_digest()
    for name in builds.IN_SUPERVISORD:
        with (tmp_path / name).open("a") as file:
            file.write("#")
        assert builds.supervision_digest(tmp_path) != builds.supervision_digest()
        shutil.copy(MODULES / name, tmp_path / name)


def test_what_was_never_noted_is_not_known(tmp_path: Path) -> None:
    assert builds.left(tmp_path, builds.LOADED) == ""
    builds.leave(tmp_path, builds.LOADED, "abc")
    assert builds.left(tmp_path, builds.LOADED) == "abc"
    builds.leave(tmp_path / "nowhere", builds.LOADED, "abc")
