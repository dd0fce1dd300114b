"""The worker package: the same content makes the same bytes, wherever emp lies."""

from __future__ import annotations

import io
import os
import tarfile
import tomllib
from pathlib import Path

from emp_orch import packing, resources
from emp_orch.control.packing import KEPT, keep_own, own_package
from emp_orch.layout import Layout
from emp_orch.packing import pack

ROOT = Path(__file__).resolve().parents[2]


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
    left = {p.name[0] for p in layout.packages.iterdir() if p != own}
    assert left == {str(n) for n in range(3, KEPT + 2)}
    keep_own(layout)
    assert len(list(layout.packages.iterdir())) == KEPT
