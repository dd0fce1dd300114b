"""A wheel built from the tree works outside the checkout: `emp init && emp apply -y`, its data files inside."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from audit.sbom import bill
from support.stack.stack import Stack, free_ports
from support.tree import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def emp(wheel: Path, tmp_path: Path) -> Iterator[Path]:
    """`emp` from the wheel in an environment of its own, which borrows only the dependencies of ours."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    subprocess.run([home / "bin/python", "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    (site,) = (home / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    yield home / "bin" / "emp"


def test_the_wheel_holds_what_emp_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"emp.yaml", "schema/emp.schema.json", "templates/supervisord.conf.j2", "templates/control.conf.j2"}
    assert {f"emp_orch/_data/{name}" for name in wanted} <= names
    assert "emp_orch/monitor/static/index.html" in names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "emp_orch").rglob("*.lua")} <= names
    assert not [n for n in names if n.startswith(("tests/", "audit/", "bench/"))]


def test_the_wheel_holds_its_bill_of_materials(wheel: Path) -> None:
    """Where PEP 770 has it; what stands in it is tested in test_audit."""
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (n for n in opened.namelist() if "/sboms/" in n)
        assert name.partition("/")[0].endswith(".dist-info") and opened.read(name).decode() == bill()


def test_a_wheel_that_is_made_of_the_source_archive_is_the_same(wheel: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(argv, check=True, capture_output=True)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {e.filename: e.CRC for e in one.infolist()} == {e.filename: e.CRC for e in other.infolist()}


def test_init_and_apply_outside_the_checkout(emp: Path, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "fleet")
    stack.file.unlink()
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*args: str) -> str:
        done = subprocess.run(
            [emp, *args],
            cwd=stack.root,
            env=environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + stack.log_ends()
        return done.stdout

    where = subprocess.run(
        [emp.parent / "python", "-c", "import emp_orch; print(emp_orch.__file__)"],
        cwd=stack.root,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(tmp_path))
    run("init")
    config = yaml.safe_load(stack.file.read_text())
    first = free_ports(24)
    config["redis"]["port"] = first
    config["api"]["port"], config["monitor"]["port"] = first + 1, first + 2
    config["services"]["simulation"]["port"], config["services"]["comfyui"]["port"] = first + 3, first + 4
    stack.file.write_text(yaml.safe_dump(config))
    try:
        run("apply", "-y")
        assert run("diff").startswith("in sync")
        assert "completed" in run("submit", "simulation", "--wait")
    finally:
        run("down")
    assert stack.leftovers() == []
