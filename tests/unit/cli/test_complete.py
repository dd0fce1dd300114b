"""What a shell offers after Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emp_orch.control.host import generation as generations
from emp_orch.layout import Layout
from emp_orch.store.fleet.generations import Generation
from support.fleet.fleets import fleet, machine


def _offered(folder: Path, words: str, begun: str = "") -> list[str]:
    """What bash is offered for the word that begins with `begun` after `emp WORDS`."""
    typed = ["emp", *words.split()]
    line = f"{' '.join(typed)} {begun}"
    environ = {"_EMP_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(typed))}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'emp'; from emp_orch.cli.main import main; main()"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr
    return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]


@pytest.fixture
def applied(tmp_path: Path) -> Path:
    layout = Layout(tmp_path)
    layout.state.mkdir()
    found = fleet([], machine("left"), machine("right"))
    generations.keep(layout, Generation(number=12, at_ms=0, fleet=found, digest=""))
    return tmp_path


@pytest.mark.parametrize("words", ["scale", "restart"])
def test_machines_are_offered(applied: Path, words: str) -> None:
    assert _offered(applied, words) == ["left", "right"]


@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ("restart", "left/", ["left/redis-worker-gpu0", "left/shared-setup"]),
        ("pause", "left", ["left", "left/redis-worker-gpu0", "left/shared-setup"]),
        ("restart left", "re", ["redis-worker-gpu0"]),
        ("restart nobody", "", []),
        ("top", "ri", ["right"]),
        ("logs", "re", ["reconcile", "redis"]),
        ("logs", "right/re", ["right/redis-worker-gpu0"]),
        ("drain", "left", ["left"]),
    ],
)
def test_programs_are_offered(applied: Path, words: str, begun: str, offered: list[str]) -> None:
    assert sorted(_offered(applied, words, begun)) == offered


def test_generations_before_the_last_are_offered_from_another_folder(
    applied: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert _offered(elsewhere, "rollback") == []
    assert _offered(elsewhere, f"-C {applied} rollback") == ["11", "10", "9", "8", "7", "6", "5", "4", "3"]


def test_a_damaged_file_offers_nothing(applied: Path) -> None:
    Layout(applied).generation.write_bytes(b'{"number": "many"}')
    assert _offered(applied, "scale") == []
