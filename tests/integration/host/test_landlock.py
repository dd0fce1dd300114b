"""The fence itself, on this kernel: each in a process of its own, for nobody takes one down."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emp_orch.landlock import why_not
from support.host.seccomp import LANDLOCK
from support.tree import TESTS

HEAD = """
import os, pathlib, subprocess, sys, threading
from emp_orch.landlock import Fence, Unavailable, within, why_not
root = pathlib.Path(sys.argv[1])
hidden = root / "hidden"
def refused(attempt, *words):
    try:
        attempt(*words)
    except PermissionError:
        return
    except OSError as e:
        assert e.errno == 18, e  # EXDEV: what a rename out of reach answers
        return
    raise AssertionError(f"{attempt} {words} was not refused")
"""
BEHIND = HEAD + "Fence([str(hidden)]).enter()\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("hidden/inner", "open", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("hidden/secret", "hidden/inner/secret", "open/file"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "hidden")
    return tmp_path


def does(script: str, root: Path, *, filtered: int = 0, calls: tuple[int, int] = LANDLOCK) -> str:
    """What `script` prints; it must succeed. `filtered`: what its kernel answers when asked for a Landlock."""
    shut = f"from support.host import seccomp; seccomp.refuse({calls[0]}, {calls[1]}, {filtered})\n"
    done = subprocess.run(
        [sys.executable, "-c", (shut if filtered else "") + script, str(root)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_this_kernel_has_it() -> None:
    assert why_not() == ""


@pytest.mark.parametrize(
    "attempt",
    [
        "refused(open, hidden / 'secret')",
        "refused(open, hidden / 'inner' / 'secret')",
        "refused(open, root / 'link' / 'secret')",
        "refused(open, hidden / 'secret', 'a')",
        "refused(open, hidden / 'new', 'w')",
        "refused(os.truncate, hidden / 'secret', 0)",
        "refused(os.unlink, hidden / 'secret')",
        "refused(os.rmdir, hidden / 'inner')",
        "refused(os.mkdir, hidden / 'new')",
        "refused(os.mkfifo, hidden / 'new')",
        "refused(os.symlink, root / 'open', hidden / 'new')",
        "refused(os.rename, hidden / 'secret', root / 'open' / 'secret')",
        "refused(os.rename, root / 'open' / 'file', hidden / 'file')",
        "refused(os.rename, hidden, root / 'open' / 'hidden')",
        "refused(os.link, hidden / 'secret', root / 'open' / 'secret')",
        # environ is the same, save for who has CAP_PERFMON, as root has
        "refused(os.readlink, f'/proc/{os.getppid()}/cwd')",
        "refused(os.kill, os.getppid(), 0)",
        "assert subprocess.run(['cat', hidden / 'secret'], capture_output=True).returncode",
        "refused(open, f'/proc/self/root{hidden}/secret')",
        "fd = os.open(hidden, os.O_PATH); refused(lambda: os.open('secret', os.O_RDONLY, dir_fd=fd))",
    ],
)
def test_what_is_hidden_is_out_of_reach(root: Path, attempt: str) -> None:
    does(BEHIND + attempt, root)
    assert (root / "hidden/secret").read_text() == "x"


@pytest.mark.parametrize(
    "attempt",
    [
        "assert (root / 'open' / 'file').read_text() == 'x'",
        "(root / 'open' / 'new').write_text('y'); (root / 'open' / 'new').unlink()",
        "(root / 'open' / 'd').mkdir(); os.rename(root / 'open' / 'd', root / 'other' / 'd')",
        "os.rename(root / 'open' / 'file', root / 'other' / 'file')",
        "os.link(root / 'open' / 'file', root / 'other' / 'file')",
        "os.truncate(root / 'open' / 'file', 0)",
        "open('/dev/null', 'w').write('x'); open('/proc/self/environ').read()",
        "c = subprocess.Popen(['sleep', '100']); open(f'/proc/{c.pid}/environ').read(); c.kill(); c.wait()",
        "assert os.listdir(root / 'hidden')",
        "r, w = os.pipe(); open(f'/proc/self/fd/{w}', 'w').close()",
    ],
)
def test_all_else_works(root: Path, attempt: str) -> None:
    does(BEHIND + attempt, root)


def test_who_starts_something_behind_it_stays_outside(root: Path) -> None:
    script = """
words = ["sh", "-c", "cat $0", hidden / "secret"]
start = lambda: subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child = within(Fence([str(hidden)]), start)
assert (child.communicate()[0], child.returncode) == (b"", 1)
assert within(None, start).communicate()[0] == b"x"
assert (hidden / "secret").read_text() == "x"
assert threading.active_count() == 1
try:
    within(Fence([str(hidden)]), lambda: subprocess.Popen(["/none"]))
except FileNotFoundError:
    print("told")
assert len(os.listdir("/proc/self/fd")) < 10
"""
    assert does(HEAD + script, root) == "told\n"


@pytest.mark.parametrize(
    ("code", "why"),
    [(errno.ENOSYS, "has no Landlock"), (errno.EOPNOTSUPP, "started without"), (errno.EPERM, "not perm")],
)
def test_a_kernel_without_it_says_why(root: Path, code: int, why: str) -> None:
    script = """
print(why_not())
try:
    Fence([str(hidden)])
except Unavailable:
    assert (hidden / "secret").read_text() == "x"
"""
    told = does(HEAD + script, root, filtered=code)
    assert why in told and os.uname().release in told


@pytest.mark.parametrize("call", [444, 445, 446])
def test_where_one_call_is_refused_what_is_started_stays_outside(root: Path, call: int) -> None:
    script = """
print(why_not())
try:
    fence = Fence([str(hidden)])
except Unavailable:
    fence = None
assert within(fence, lambda: subprocess.run(["cat", hidden / "secret"], capture_output=True)).stdout == b"x"
"""
    assert "not permitted here" in does(HEAD + script, root, filtered=errno.EPERM, calls=(call, call))
