"""The worker package of the emp that applies, where the API serves it from."""

from __future__ import annotations

from emp_orch.errors import EmpError
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.layout import Layout
from emp_orch.packing import own_archive, own_digest
from emp_orch.runtimes.keys import package_scripts
from emp_orch.settings import write_private
from emp_orch.store.acl.machine_scripts import own_texts
from emp_orch.store.redis.keys import Keys

# Archives that stay, the newest of them: those of the last versions of emp that applied here.
KEPT = 5


def own_package() -> WorkerPackage:
    """The package that this very emp makes. Raises EmpError."""
    return WorkerPackage(digest=own_digest())


def keep_own(layout: Layout, prefix: str = "") -> None:
    """Put this emp's package where the API serves it from, and beside it what it sends to a Redis whose keys begin with
    `prefix`; the oldest of the others go. Raises EmpError.
    """
    digest = own_package().digest
    path = layout.package(digest)
    try:
        layout.packages.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_bytes() == own_archive():
            path.touch()
        else:
            write_private(path, own_archive())
        package_scripts.keep(layout, digest, prefix, own_texts(Keys(prefix)))
        kept = sorted(layout.packages.glob("*.tar"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        for old in kept[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as e:
        raise EmpError(
            f"cannot write {layout.packages}: {e.strerror}",
            hint="check who owns the folder, and its free space",
        ) from e
