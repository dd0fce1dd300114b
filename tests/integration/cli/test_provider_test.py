"""`emp provider test` as a user runs it, on programs that keep the contract, break it, leave boxes, or are none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from emp_orch.runtimes.providers.contract import RULES
from support.pools import boxes_program

PROGRAM = str(boxes_program.__file__)
KEY = "open-sesame-of-ours"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "engine"
    yield folder
    for path in folder.glob("*/*.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def argv(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "emp_orch", "-C", str(folder), "provider", "test", *words]


def provider_test(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environ}
    return subprocess.run(argv(folder, *words), capture_output=True, text=True, timeout=120, env=env)


def living(engine: Path) -> list[Path]:
    return [p for p in engine.glob("*/*.pid") if boxes_program.alive(p)]


def changed(folder: Path, old: str, new: str) -> str:
    """The program with a fault in it."""
    text = Path(PROGRAM).read_text()
    assert old in text
    path = folder / "mine.py"
    path.write_text(text.replace(old, new))
    return str(path)


def test_a_program_that_keeps_all_rules(engine: Path, tmp_path: Path) -> None:
    engine.mkdir()
    (engine / "key").write_text(KEY)
    words = ["--env", "BOXES_KEY", "--", sys.executable, PROGRAM, "./engine", "sleep", "86396"]
    done = provider_test(tmp_path, *words, BOXES_KEY=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok      ") == len(RULES) == 11
    assert done.stdout.endswith("11 of 11 rules are kept\n") and done.stderr == ""
    assert living(engine) == []
    # With another key it is refused, in its own words, without the key.
    done = provider_test(tmp_path, "--json", *words, BOXES_KEY="another-key")
    assert done.returncode == 1 and "another-key" not in done.stdout + done.stderr
    rules = json.loads(done.stdout)["rules"]
    assert [r["rule"] for r in rules] == [r.__name__ for r in RULES]
    assert not rules[0]["ok"] and "exited with status 1 at create: 401: *** is no key" in rules[0]["why"]


def test_a_rule_that_is_broken_is_told_and_nothing_is_left(engine: Path, tmp_path: Path) -> None:
    """Each create makes another box, and both are listed under the member."""
    mine = changed(
        tmp_path,
        "    if path.exists() and alive(path):\n        return {}\n",
        "    if path.exists():\n        path.rename(path.with_suffix(f'.{path.read_text()}.pid'))\n",
    )
    done = provider_test(tmp_path, "--within", "5s", "--", sys.executable, mine, str(engine), "sleep", "86395")
    assert done.returncode == 1, done.stdout + done.stderr
    second = done.stdout.partition("FAILED  A second create of the same member changes nothing.\n")[2].splitlines()[0]
    assert "it lists two boxes of tried-" in second, done.stdout
    assert "ok      After create, the list has the member's box" in done.stdout
    until_none(engine)


def until_none(engine: Path) -> None:
    deadline = time.monotonic() + 10
    while found := [p for p in engine.glob("*/*.pid") if Path("/proc", p.read_text(), "exe").exists()]:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_what_could_not_be_given_back_is_named(engine: Path, tmp_path: Path) -> None:
    mine = changed(tmp_path, "            os.kill(int(one.read_text()), signal.SIGTERM)\n", "            pass\n")
    words = ["--within", "1s", "--", sys.executable, mine, str(engine), "sleep", "86394"]
    done = provider_test(tmp_path, "--json", *words)
    assert done.returncode == 1
    said = json.loads(done.stdout)
    left = {path.stem for path in living(engine)}
    assert left and {line.partition(" ")[0] for line in said["left"]} == left
    assert done.stderr.count("left behind: ") == len(left)
    broken = {r["rule"] for r in said["rules"] if not r["ok"]}
    assert "remove_takes_the_box" in broken and "create_shows_one_box" not in broken


def test_broken_off_it_gives_back_what_it_asked_for(engine: Path, tmp_path: Path) -> None:
    running = subprocess.Popen(
        argv(tmp_path, "--", sys.executable, PROGRAM, str(engine), "sleep", "86393"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with running:
        deadline = time.monotonic() + 30
        while not living(engine):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 1 and b"emp: stopped" in err, err
    until_none(engine)


def test_what_is_no_program_cannot_be_run(tmp_path: Path) -> None:
    for words, said in (
        ((), "no program was given"),
        (("--", "./none"), "`./none` cannot be run in"),
        (("--env", "A-B=x", "--", "true"), "env.A-B is no name of a variable"),
        (("--env", "NOT_THERE", "--", "true"), "the environment has no NOT_THERE"),
        (("--timeout", "90s", "--", "true"), "not in the range"),
    ):
        done = provider_test(tmp_path, *words)
        assert done.returncode == 2 and said in done.stderr, done.stderr
