"""Worker packages on disk: killed at every step, on a full disk, given packages that do not run here."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emp_orch.errors import EmpError
from emp_orch.isolation import USERS_PATH
from emp_orch.machine.launch import from_package
from emp_orch.machine.package import disk as package_disk
from emp_orch.machine.package.archive import BadPackage
from emp_orch.machine.package.disk import PackageDisk
from support.machine.package import digest_of, files_below, small, tar_of

OLD, NEW = small("old"), small("new")
# What Python tells of before it does it (sys.addaudithook): all that changes a disk, and each open.
STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "shutil.rmtree", "subprocess.Popen")


def _put(disk: PackageDisk, archive: bytes) -> str:
    disk.prepare()
    digest = digest_of(archive)
    disk.part(digest).write_bytes(archive)
    return digest


def _switch(disk: PackageDisk, archive: bytes) -> str:
    digest = _put(disk, archive)
    disk.install(digest)
    disk.switch(digest)
    disk.clean(frozenset())
    return digest


def _in_child(act: Callable[[], object]) -> int:
    """The wait status of a process of its own that does `act`."""
    if (pid := os.fork()) == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def _killed_at(step: int, root: Path, act: Callable[[], object]) -> bool:
    """Whether `act` was killed before its `step`th step below `root`; False: it came to its end first."""
    left = step

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        if event in STEPS and (event == "subprocess.Popen" or any(str(a).startswith(str(root)) for a in args)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    def with_hook() -> None:
        sys.addaudithook(hook)
        act()

    status = _in_child(with_hook)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


def test_killed_at_every_step(tmp_path: Path) -> None:
    """What is in force is whole at all times, and whoever comes next gets to the end."""
    wholes = {}
    for archive in (OLD, NEW):
        disk = PackageDisk(tmp_path / digest_of(archive))
        wholes[digest_of(archive)] = files_below(disk.root / _switch(disk, archive))
    step = 0
    while True:
        disk = PackageDisk(tmp_path / f"at {step}")
        old = _switch(disk, OLD)
        killed = _killed_at(step, disk.root, lambda disk=disk: _switch(disk, NEW))  # type: ignore[misc]
        current = disk.current()
        assert current in (wholes if killed else {digest_of(NEW)})
        for digest in filter(disk.has, wholes):
            assert files_below(disk.root / digest) == wholes[digest], (step, digest)
        assert disk.has(old) or current == digest_of(NEW)
        _switch(disk, NEW)
        assert {p.name for p in disk.root.iterdir()} == {".lock", "current", digest_of(NEW)}
        assert files_below(disk.root / "current") == wholes[digest_of(NEW)]
        if not killed:
            break
        step += 1
    assert step > 20


@pytest.mark.parametrize("limit", [1_000, 9_000])
def test_a_full_disk_leaves_the_old_one_whole(tmp_path: Path, limit: int) -> None:
    disk = PackageDisk(tmp_path)
    old = _switch(disk, OLD)
    before = files_below(tmp_path / old)
    big = small("new", **{"emp_orch/big.py": b"#" * 10_000})
    digest = _put(disk, big)

    def install() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(EmpError, match=r"cannot write in .*: File too large"):
            disk.install(digest)

    assert _in_child(install) == 0
    assert disk.current() == old and files_below(tmp_path / old) == before
    assert not disk.has(digest) and not list(tmp_path.glob(".*.new"))
    disk.install(digest)  # once there is room
    assert disk.has(digest)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"emp_orch/worker/daemon.py": b"import surely_not_there"}, "No module named 'surely_not_there'"),
        ({"emp_orch/cli/worker.py": b"def x("}, "SyntaxError"),
        ({"emp_orch/__init__.py": b"import sys; sys.exit('too old')"}, "too old"),
        ({"emp_orch/__init__.py": b"import os; os.kill(os.getpid(), 9)"}, "exit -9"),
    ],
)
def test_a_package_that_does_not_run_here(tmp_path: Path, more: dict[str, bytes], said: str) -> None:
    disk = PackageDisk(tmp_path)
    old = _switch(disk, OLD)
    digest = _put(disk, small("new", **more))
    with pytest.raises(BadPackage, match=f"does not run here: .*{said}"):
        disk.install(digest)
    assert disk.current() == old and {p.name for p in tmp_path.iterdir()} == {".lock", "current", old}


def test_a_package_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_disk, "CHECK_S", 0.5)
    disk = PackageDisk(tmp_path)
    digest = _put(disk, small("new", **{"emp_orch/__init__.py": b"import time; time.sleep(1e6)"}))
    with pytest.raises(BadPackage, match="does not import within"):
        disk.install(digest)
    assert disk.current() == ""


def test_one_without_modules_of_its_own_does_not_pass_for_the_machines(tmp_path: Path) -> None:
    """Where its emp_orch cannot be imported from it, Python would take the one that is installed."""
    disk = PackageDisk(tmp_path)
    digest = _put(disk, tar_of({"emp_orch/other.py": b""}))
    with pytest.raises(BadPackage, match="another emp_orch comes first"):
        disk.install(digest)


def test_workers_start_from_what_the_link_says(tmp_path: Path) -> None:
    where = {"EMP_MACHINE_DIR": str(tmp_path)}
    env = {**where, "PYTHONPATH": "/x", "EMP_PACKAGE": "stale", "A": "b"}
    plain = {**where, "PYTHONPATH": "/x", "A": "b"}
    assert from_package(env) == plain
    disk = PackageDisk(tmp_path / "packages")
    digest = _switch(disk, NEW)
    folder = tmp_path / "packages" / digest
    assert from_package(env) == {**plain, "PYTHONPATH": str(folder), USERS_PATH: "/x", "EMP_PACKAGE": digest}
    assert from_package(where)["PYTHONPATH"] == str(folder)
    for target in ("nowhere", "../packages/" + digest, "/etc"):
        (disk.root / "current").unlink()
        (disk.root / "current").symlink_to(target)
        assert from_package(env) == plain
        assert disk.current() == ""
