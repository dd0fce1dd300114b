"""The worker package: the same content makes the same bytes, wherever emp lies."""

from __future__ import annotations

import io
import os
import tarfile
import tomllib
from pathlib import Path

from emp_orch import packing, resources
from emp_orch.control.plane.packing import KEPT, keep_own, own_package
from emp_orch.layout import Layout
from emp_orch.packing import pack
from emp_orch.runtimes.keys import package_scripts
from emp_orch.store.acl.machine_scripts import FORMER, own_texts
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import digest_of
from emp_orch.store.reports.reports import FORGET, PUT
from support.tree import ROOT


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


FILES = {"__init__.py": "", "a/b.py": "b = 1", "a/page.js": "1", "z.py": "z"}
LEFT_OUT = {"__pycache__/z.pyc": "?", "a/old.pyc": "?", ".hidden/x.py": "?", "a/b.py~": "?", "_data/old": "?"}


def _names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {(m.mtime, m.uid, m.uname, m.mode, m.type) for m in tar} == {(0, 0, "", 0o644, tarfile.REGTYPE)}
        return tar.getnames()


def test_same_content_same_bytes(tmp_path: Path) -> None:
    one = _tree(tmp_path / "1" / "emp_orch", FILES)
    other = _tree(tmp_path / "2" / "emp_orch", {**LEFT_OUT, **dict(reversed(FILES.items()))})
    (other / "a" / "b.py").chmod(0o755)
    os.utime(other / "z.py", (1, 1))
    data = _tree(tmp_path / "data", {"t/x.j2": "x"})
    archive = pack(one, {"t/x.j2": data / "t/x.j2"})
    assert archive == pack(other, {"t/x.j2": data / "t/x.j2"})
    assert _names(archive) == [f"emp_orch/{n}" for n in ["__init__.py", "_data/t/x.j2", "a/b.py", "a/page.js", "z.py"]]
    (other / "z.py").write_text("y")
    assert archive != pack(other, {"t/x.j2": data / "t/x.j2"})


def test_a_wheel_packs_what_a_checkout_packs(tmp_path: Path) -> None:
    """Its data lies elsewhere there, as pyproject.toml says."""
    own = pack(resources.MODULES, resources.data_files())
    with tarfile.open(fileobj=io.BytesIO(own)) as tar:
        tar.extractall(tmp_path, filter="data")
    installed = tmp_path / "emp_orch"
    data = {p.relative_to(installed / "_data").as_posix(): p for p in (installed / "_data").rglob("*") if p.is_file()}
    assert {"emp.yaml", "schema/emp.schema.json", "templates/supervisord.conf.j2"} <= data.keys()
    assert pack(installed, data) == own
    assert len(list(installed.rglob("*.lua"))) == len(list(resources.MODULES.rglob("*.lua"))) > 0
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(wheel["force-include"]) == sorted((*resources.DATA, "containers"))


def test_the_last_few_stay_and_a_damaged_one_is_mended(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.packages.mkdir(parents=True)
    for n in range(KEPT + 2):
        old = layout.package(f"{n}" * 64)
        old.write_text("old")
        os.utime(old, (n, n))
    own = layout.package(own_package().digest)
    own.write_text("damaged")
    keep_own(layout)
    assert own.read_bytes() == packing.own_archive()
    assert own.stat().st_mode & 0o777 == 0o600
    left = {p.name[0] for p in layout.packages.glob("*.tar") if p != own}
    assert left == {str(n) for n in range(3, KEPT + 2)}
    keep_own(layout)
    assert len(list(layout.packages.glob("*.tar"))) == KEPT


def test_an_apply_leaves_what_its_emp_sends_to_redis_and_the_last_few_stay(tmp_path: Path) -> None:
    layout, digest = Layout(tmp_path), own_package().digest
    layout.packages.mkdir(parents=True)
    for n in range(package_scripts.KEPT + 2):
        package_scripts.keep(layout, f"{n:064}", "p:", (f"return {n}",))
        os.utime(layout.package_scripts(f"{n:064}"), (n, n))
    for _ in range(2):
        keep_own(layout, "p:")
        known = package_scripts.brought(layout, "p:")
        assert known.pop(digest) == own_texts(Keys("p:"))
        assert known == {f"{n:064}": (f"return {n}",) for n in range(3, package_scripts.KEPT + 2)}
        assert layout.package_scripts(digest).stat().st_mode & 0o777 == 0o600
    assert package_scripts.brought(layout, "q:") == {}, "other keys: other texts"
    layout.package_scripts(digest).write_text("{")
    assert digest not in package_scripts.brought(layout, "p:")
    assert package_scripts.brought(Layout(tmp_path / "none"), "p:") == {}


def test_what_agents_of_a_release_send_is_loaded_by_later_ones_too() -> None:
    """An image or a box of an older emp sends the scripts that it has. Whoever changes PUT or FORGET after a release
    puts the text that was released into FORMER, and adds the new digest here."""
    released = {"f5c80b8570c79a5dede4a05afe5809e67c5b93d2", "3e49328b5cea51c38af201c9c190a36683565038"}
    assert released <= {digest_of(text) for text in (PUT, FORGET, *FORMER)}
