"""`make up` and `make down` of a fresh clone, with the Pythons of distributions, not the one the tests run on."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.host.debian import root_tar, run, tools
from support.stack.stack import Stack
from support.tree import ROOT

SYSTEM = Path("/usr/bin/python3")
# Debian 13, and what the README says to install.
SUITE, PACKAGES = "trixie", "make,python3-venv"
# In namespaces of its own, so that nothing stays: not a mount, not a process. $1 is the root, $2 the folder in it, the
# rest is what of this host stands there too.
INSIDE = """
set -eu
root=$1 folder=$2; shift 2
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for path in "$@"; do mkdir -p "$root$path"; mount --bind "$path" "$root$path"; done
both() {
  chroot "$root" sh -c 'cd "$1" && make up FILE=fleet.yaml && .venv/bin/python --version' sh "$folder" || failed=$?
  chroot "$root" sh -c 'cd "$1" && make down' sh "$folder" || failed=$?
}
failed=0
both
exit "$failed"
"""


def _version(python: Path) -> tuple[int, ...]:
    words = "import sys; print(*sys.version_info[:3])"
    return tuple(map(int, subprocess.run([python, "-c", words], check=True, capture_output=True).stdout.split()))


def _fresh_clone(clone: Path, stack: Stack) -> None:
    """The tree as it stands, what is not committed yet too; `fleet.yaml` is the default on ports of our own."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    clone.mkdir(parents=True)
    subprocess.run(["tar", "-c", "--null", "-T", "-", "-f", clone / "tree.tar"], cwd=ROOT, input=files, check=True)
    subprocess.run(["tar", "-x", "-f", "tree.tar"], cwd=clone, check=True)
    (clone / "tree.tar").unlink()
    (clone / "fleet.yaml").write_text(stack.file.read_text())


def _told(output: str) -> None:
    assert "is ready: generation 1" in output
    assert "the fleet is down" in output
    assert "nothing was applied here" not in output


@pytest.mark.timeout(300)
def test_the_two_commands_of_the_readme(tmp_path: Path) -> None:
    if not SYSTEM.exists() or _version(SYSTEM) < (3, 11):
        assert os.environ.get("CI") != "true", f"{SYSTEM} is not there, or older than 3.11"
        pytest.skip(f"no {SYSTEM} of 3.11 or newer")
    clone = tmp_path / "clone"
    _fresh_clone(clone, Stack(tmp_path / "fleet"))
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def make(*words: str) -> str:
        done = subprocess.run(["make", *words], cwd=clone, env=environ, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    up = ""
    try:
        up = make("up", f"PYTHON={SYSTEM}", "FILE=fleet.yaml")
        assert _version(clone / ".venv/bin/python") == _version(SYSTEM)
    finally:
        down = make("down")
    _told(up + down)


@pytest.fixture
def debian(tmp_path: Path) -> Iterator[Path]:
    """The root of a Debian 13."""
    lacking = [
        tool for tool in ("debootstrap", "unshare", "chroot") if shutil.which(tool, path=tools()["PATH"]) is None
    ]
    if lacking or os.geteuid() != 0:
        why = f"a Debian 13 needs root{''.join(f', {tool}' for tool in lacking)}"
        assert os.environ.get("CI") != "true", why
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="emptrixie-", dir="/var/tmp") as folder:
        run("tar", "-C", folder, "-xf", str(root_tar(SUITE, PACKAGES)))
        for name in ("resolv.conf", "hosts"):
            shutil.copyfile(f"/etc/{name}", f"{folder}/etc/{name}")
        yield Path(folder)


@pytest.mark.timeout(600)
def test_the_two_commands_of_the_readme_on_debian_13(debian: Path, tmp_path: Path) -> None:
    clone = Path("/root/emp")
    _fresh_clone(debian / str(clone).lstrip("/"), Stack(tmp_path / "fleet"))
    environ, shared = _pip_of_this_host()
    for path in [path for path in shared if path.is_file()]:
        (debian / str(path.parent).lstrip("/")).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, debian / str(path).lstrip("/"))
    folders = [str(path) for path in shared if path.is_dir()]
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE, "sh", debian, clone, *folders],
        env={"PATH": tools()["PATH"], "HOME": "/root", "LANG": "C.UTF-8", **environ},
        capture_output=True,
        text=True,
        timeout=400,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
    assert "Python 3.13." in done.stdout
    _told(done.stdout)


def _pip_of_this_host() -> tuple[dict[str, str], list[Path]]:
    """How pip gets packages here, as environment variables, and the folders and files of this host that these name."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found = {n: v for n, v in os.environ.items() if n.lower().endswith("_proxy")}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        found[f"PIP_{name.rpartition('.')[2].upper().replace('-', '_')}"] = str(ast.literal_eval(value))
    # What the tests run once need not be compiled first.
    found["PIP_NO_COMPILE"] = "1"
    paths = []
    for word in " ".join(v for n, v in found.items() if n.startswith("PIP_")).split():
        url = urlsplit(word)
        if url.scheme == "file":
            paths.append(Path(url.path).parent)  # an index, and the files beside it
        elif word.startswith("/"):
            paths.append(Path(word))
    return found, [path for path in dict.fromkeys(paths) if path.exists() and path != Path("/")]


def _older_python() -> Path | None:
    """A Python of this machine that is too old."""
    found = [shutil.which(f"python3.{minor}") for minor in (10, 9, 8)]
    found += [str(path) for path in sorted((Path.home() / ".pyenv/versions").glob("3.*/bin/python3"))]
    for path in filter(None, found):
        asked = subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info >= (3, 11))"], capture_output=True)
        if asked.returncode == 0:
            return Path(path)
    return None


def test_an_older_python_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Not a must in CI: a bare machine has one Python."""
    older = _older_python()
    if older is None:
        pytest.skip("no Python older than 3.11 here")
    clone = tmp_path / "clone"
    _fresh_clone(clone, Stack(tmp_path / "fleet"))
    done = subprocess.run(
        ["make", "up", f"PYTHON={older}"], cwd=clone, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0 and not (clone / ".venv").exists()
    assert "emp needs Python 3.11 or newer" in done.stdout and "make up PYTHON=" in done.stdout
