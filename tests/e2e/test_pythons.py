"""`make up` and `make down` of a fresh clone, with the distribution's own Python, not the one the tests run on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from stack import Stack

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = Path("/usr/bin/python3")


def _version(python: Path) -> tuple[int, ...]:
    words = "import sys; print(*sys.version_info[:3])"
    return tuple(map(int, subprocess.run([python, "-c", words], check=True, capture_output=True).stdout.split()))


@pytest.mark.timeout(300)
def test_the_two_commands_of_the_readme(tmp_path: Path) -> None:
    if not SYSTEM.exists() or _version(SYSTEM) < (3, 11):
        assert os.environ.get("CI") != "true", f"{SYSTEM} is not there, or older than 3.11"
        pytest.skip(f"no {SYSTEM} of 3.11 or newer")
    clone = tmp_path / "clone"
    # The tree as it stands: what is not committed yet is tried too.
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    clone.mkdir()
    subprocess.run(["tar", "-c", "--null", "-T", "-", "-f", clone / "tree.tar"], cwd=ROOT, input=files, check=True)
    subprocess.run(["tar", "-x", "-f", "tree.tar"], cwd=clone, check=True)
    stack = Stack(tmp_path / "fleet")
    (clone / "fleet.yaml").write_text(stack.file.read_text())
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def make(*words: str) -> str:
        done = subprocess.run(["make", *words], cwd=clone, env=environ, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        assert "is ready: generation 1" in make("up", f"PYTHON={SYSTEM}", "FILE=fleet.yaml")
        assert _version(clone / ".venv/bin/python") == _version(SYSTEM)
    finally:
        told = make("down")
    assert "the fleet is down" in told
    assert "nothing was applied here" not in told
