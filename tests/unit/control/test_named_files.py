"""Files that people name, of every kind that Linux has: told at once what they are, and never waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from emp_orch.cli.main import cli
from emp_orch.control.apply import planfile
from emp_orch.control.host.filewatch import FileWatch
from emp_orch.errors import EmpError, UsageError
from emp_orch.host import plainfile

GOOD = "version: 1\nname: f\nmachines:\n  m:\n    services: []\n    num_gpus: 1\n"
HUGE = 3 * 1024**3
HANGS_S = 30


def emp(folder: Path, *words: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(cli, ["-C", str(folder), *words], input=stdin)


def told(done: Result) -> str:
    """What was refused, with the way out."""
    assert isinstance(done.exception, EmpError), done.output
    assert done.exception.exit_code == 2
    return f"{done.exception.message}\n{done.exception.hint or ''}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(HUGE)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", [("validate",), ("render",), ("apply", "-y"), ("diff", "--plan-out", "plan")])
@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("fifo", "fifo: is a pipe, not a file"),
        ("/dev/zero", "/dev/zero: is a device, not a file"),
        ("huge", "huge: larger than 8 MiB"),
        ("folder", "folder: is a folder"),
    ],
)
def test_what_is_no_emp_yaml_is_told_at_once(folder: Path, command: tuple[str, ...], file: str, what: str) -> None:
    said = told(emp(folder, command[0], file, *command[1:]))
    assert said.startswith(what)
    if "not a file" in said:
        assert "`emp validate -`" in said
    assert not (folder / ".emp").exists()


@pytest.mark.timeout(HANGS_S)
def test_a_pipe_that_nobody_reads_or_writes_keeps_nobody_waiting(folder: Path) -> None:
    """The whole command, and each other file that an emp.yaml or an option names."""
    argv = [sys.executable, "-m", "emp_orch", "-C", str(folder)]
    done = subprocess.run([*argv, "validate", "fifo"], capture_output=True, text=True, timeout=HANGS_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("emp: fifo: is a pipe, not a file\n")

    service = "services: {a: {scale: per_gpu, command: x, port: 8188, connector: comfyui, warmup: fifo}}\n"
    (folder / "emp.yaml").write_text(GOOD.replace("machines", service + "machines").replace("[]", "[a]"))
    assert 'cannot read "fifo": is a pipe' in told(emp(folder, "validate"))

    (folder / "emp.yaml").write_text(GOOD.replace("num_gpus: 1", "env: {A: {file: fifo}}"))
    said = told(emp(folder, "apply", "-y"))
    assert "secrets without a value:" in said and "fifo: is a pipe, not a file" in said

    with pytest.raises(UsageError, match="is a pipe, not a file"):
        planfile.read(folder / "fifo")
    with FileWatch() as watch:
        watch.watch([folder / "fifo"])


def test_a_secret_has_an_end(folder: Path) -> None:
    (folder / "emp.yaml").write_text(GOOD.replace("num_gpus: 1", "env: {A: {file: huge}}"))
    assert "huge: larger than 128 KiB" in told(emp(folder, "apply", "-y"))
    (folder / "latin").write_bytes(b"caf\xe9")
    (folder / "emp.yaml").write_text(GOOD.replace("num_gpus: 1", "env: {A: {file: latin}}"))
    assert "latin: not UTF-8 text" in told(emp(folder, "apply", "-y"))


def test_what_an_option_of_jobs_names_has_an_end(folder: Path) -> None:
    assert "huge is larger than a whole job may be" in told(emp(folder, "submit", "s", "--payload", "@huge"))


def test_a_socket_is_told(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")  # no longer name fits
        assert "sock: cannot be read (ENXIO)" in told(emp(folder, "validate", "sock"))


def test_dev_null_is_an_empty_file(folder: Path) -> None:
    assert plainfile.read(Path("/dev/null"), limit=1) == b""
    (folder / "emp.yaml").write_text(GOOD)
    (folder / ".env").symlink_to("/dev/null")
    assert emp(folder, "validate").exit_code == 0


def test_no_more_is_read_than_is_wanted(folder: Path) -> None:
    assert len(plainfile.read(folder / "huge", limit=10)) == 11


# --- .env


def test_a_folder_called_dotenv_is_told(folder: Path) -> None:
    (folder / "emp.yaml").write_text(GOOD)
    (folder / ".env").mkdir()
    for command in (("validate",), ("apply", "-y")):
        said = told(emp(folder, *command))
        assert said.startswith(".env: is a folder; emp reads NAME=VALUE lines from a file of that name")
    assert ".env: is a folder" in told(emp(folder, "validate", "-", stdin=GOOD))


def test_a_virtual_environment_called_dotenv_is_noted(folder: Path) -> None:
    (folder / "emp.yaml").write_text(GOOD)
    (folder / ".env").mkdir()
    (folder / ".env" / "pyvenv.cfg").touch()
    done = emp(folder, "validate")
    assert done.exit_code == 0
    assert done.stderr == ".env: note: a virtual environment of Python, nothing is read from it\n"


def test_a_pipe_called_dotenv_keeps_nobody_waiting(folder: Path) -> None:
    (folder / "emp.yaml").write_text(GOOD)
    os.mkfifo(folder / ".env")
    assert told(emp(folder, "validate")).startswith(".env: is a pipe, not a file")


# --- standard input


def test_validate_reads_standard_input(folder: Path) -> None:
    (folder / ".env").write_text("N=3\n")
    done = emp(folder, "validate", "-", stdin=GOOD.replace("num_gpus: 1", "num_gpus: ${N}"))
    assert done.stdout == "standard input is valid: fleet f, 1 machine, 0 services, 3 GPU slots\n"
    said = told(emp(folder, "validate", "-", stdin="version: 1\nnme: f\n"))
    assert "(stdin):2:1: nme: unknown key" in said
    assert told(emp(folder, "validate", "-", stdin=b"a: \xff\n")).startswith("(stdin):1:4: not UTF-8 text")
    assert "(stdin): larger than 8 MiB" in told(emp(folder, "validate", "-", stdin="#" * (8 * 1024 * 1024 + 1)))


def test_render_reads_standard_input(folder: Path) -> None:
    (folder / "emp.yaml").write_text(GOOD)
    shown = emp(folder, "render", "-", stdin=GOOD)
    assert shown.exit_code == 0
    assert shown.stdout == emp(folder, "render").stdout
    assert "[program:redis-worker-gpu0]" in shown.stdout


@pytest.mark.parametrize("file", ["/dev/stdin", "/dev/fd/0"])
def test_what_a_shell_hands_over_is_read(folder: Path, file: str) -> None:
    """As <(envsubst < emp.yaml.in) does."""
    argv = [sys.executable, "-m", "emp_orch", "-C", str(folder), "validate", file]
    done = subprocess.run(argv, input=GOOD, capture_output=True, text=True, timeout=HANGS_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file} is valid: fleet f, 1 machine, 0 services, 1 GPU slot\n"


@pytest.mark.parametrize(
    ("file", "stdin", "what"),
    [
        ("/dev/fd/99", "< /dev/null", "cannot read /dev/fd/99: No such file or directory"),
        ("-", "<&-", "standard input is closed"),
    ],
)
def test_what_was_not_handed_over_is_told(folder: Path, file: str, stdin: str, what: str) -> None:
    argv = ["sh", "-c", f'exec "$@" {stdin}', "sh", sys.executable, "-m", "emp_orch", "validate", file]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=HANGS_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"emp: {what}\n")


@pytest.mark.parametrize("command", [("apply", "-y"), ("apply", "-w"), ("diff", "--plan-out", "plan")])
def test_what_lasts_takes_no_standard_input(folder: Path, command: tuple[str, ...]) -> None:
    said = told(emp(folder, command[0], "-", *command[1:], stdin=GOOD))
    assert "takes a file: its folder is the fleet's, and it is read again later" in said
    assert "`emp validate -` checks standard input" in said
    assert list(folder.glob(".emp")) == []
