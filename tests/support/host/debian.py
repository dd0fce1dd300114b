"""Root file systems of Debian: made by debootstrap from where this host gets its packages, kept in the user's cache."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# Of no use to what runs in it; caches and lists are what packages came with.
_LEFT_OUT = (
    *("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"),
    *("proc", "sys", "debootstrap"),
)


def cache() -> Path:
    """Where what is dear to make is kept from one session to the next."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(home) / "emp-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Whoever else makes `name` in the cache waits meanwhile."""
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def path() -> str:
    return f"{os.environ.get('PATH', '')}:{_SBIN}"


def tools() -> dict[str, str]:
    return {**os.environ, "PATH": path()}


def run(*argv: str) -> None:
    done = subprocess.run(argv, env=tools(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def host_suite() -> str:
    """This host's release."""
    system = Path("/etc/os-release").read_text()
    return next(line.partition("=")[2] for line in system.splitlines() if line.startswith("VERSION_CODENAME="))


def root_tar(suite: str, packages: str) -> Path:
    """The root file system of `suite` with `packages`, divided by commas. Made once: it takes about a minute."""
    key = hashlib.sha256(f"{suite} {packages} 1".encode()).hexdigest()[:12]
    made = cache() / f"base-{key}.tar"
    with alone(f"base-{key}"):
        if not made.exists():
            with tempfile.TemporaryDirectory(prefix="empbase-", dir="/var/tmp") as folder:
                root, tar = Path(folder) / "root", made.with_suffix(".part")
                run("debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), *_mirror())
                left_out = [f"--exclude=./{path}/*" for path in _LEFT_OUT]
                run("tar", "-C", str(root), *left_out, "-cf", str(tar), ".")
                tar.replace(made)
    return made


def _mirror() -> list[str]:
    """Where this host gets its packages from: its other releases are there too."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line.partition(" ") for line in asked.stdout.splitlines())
    return next(([uri] for uri, _, of in lines if of == host_suite()), [])
