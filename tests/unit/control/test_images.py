"""What the machine image is made of: emp packed as a wheel, and wheels for another Python than ours."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from pathlib import Path

from emp_orch.control.images.pack import WHEEL_NAME, pack
from emp_orch.control.images.wheels import Target, _left_out, pinned
from emp_orch.resources import read_text


def test_emp_packs_to_the_same_bytes_with_a_true_record() -> None:
    content = pack()
    assert content == pack()
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        names = set(wheel.namelist())
        (record,) = (n for n in names if n.endswith(".dist-info/RECORD"))
        rows = {name: digest for name, digest, _ in csv.reader(io.StringIO(wheel.read(record).decode()))}
        assert rows.keys() == names
        for name, digest in rows.items():
            made = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(name)).digest()).rstrip(b"=").decode()
            assert name == record or digest == f"sha256={made}", name
        assert wheel.read("emp_orch/_data/containers/machine/Dockerfile").decode() == read_text(
            "containers/machine/Dockerfile"
        )
    data = {"emp.yaml", "schema/emp.schema.json", "templates/supervisord.conf.j2"}
    assert {f"emp_orch/_data/{name}" for name in data} <= names
    assert "emp_orch/monitor/static/index.html" in names
    assert not [n for n in names if "__pycache__" in n or n.startswith("tests/")]


def test_pip_is_asked_for_wheels_of_the_base() -> None:
    options = Target(major=3, minor=12, machine="aarch64", glibc=28).options()
    pairs = list(zip(options[::2], options[1::2], strict=True))
    assert ("--python-version", "312") in pairs and ("--abi", "cp312") in pairs
    platforms = [value for name, value in pairs if name == "--platform"]
    assert platforms[0] == "manylinux_2_28_aarch64" and "manylinux_2_17_aarch64" in platforms
    assert "manylinux_2_29_aarch64" not in platforms


def test_what_a_marker_left_out_is_asked_for_unless_linux_never_needs_it(tmp_path: Path) -> None:
    _wheel(
        tmp_path / "one-1.0-py3-none-any.whl",
        'older_python>=4; python_version < "3.11"',
        'pywin32; sys_platform == "win32"',
        'tests; extra == "dev"',
        "There_Already>=1",
    )
    _wheel(tmp_path / "there_already-2.0-py3-none-any.whl")
    assert list(_left_out(tmp_path)) == ["older_python>=4"]


def test_the_image_gets_the_versions_that_run_here() -> None:
    versions = pinned()
    assert versions["msgspec"] and versions["supervisor"]
    assert "emp-orch" not in versions
    assert WHEEL_NAME.startswith("emp_orch-")


def _wheel(path: Path, *requires: str) -> None:
    name = path.name.partition("-")[0]
    lines = ["Metadata-Version: 2.1", f"Name: {name}", *(f"Requires-Dist: {r}" for r in requires), "", "text"]
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join(lines))
