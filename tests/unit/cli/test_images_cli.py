"""`emp images` where there is no engine: what it says, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def emp(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "emp_orch", "images", *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, **env}, check=False)


def test_docker_is_not_installed(tmp_path: Path) -> None:
    done = emp("build", PATH=str(tmp_path))
    assert done.returncode == 3
    assert "the docker command is not installed" in done.stderr


def test_no_engine_answers(tmp_path: Path) -> None:
    docker = tmp_path / "docker"  # the client's part is to fail: it is the same with every client
    docker.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    docker.chmod(0o755)
    done = emp("list", "--host", "unix:///nowhere/docker.sock", PATH=str(tmp_path))
    assert done.returncode == 3
    assert "unix:///nowhere/docker.sock does not answer: Cannot connect to the Docker daemon" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("build", "--host", "gpu-a"), "'gpu-a' is not the URL of a Docker Engine"),
        (("build", "--base", "--privileged"), "--base '--privileged' is not the name of an image"),
        (("build", "--control", "--cli", ""), "--cli '' is not the name of an image"),
        (("build", "--store", "nosuch"), "'nosuch' is not one of 's3', 'gcs', 'abfs'"),
        (("build", "--tag", "a b"), "--tag 'a b' is not the name of an image"),
    ],
)
def test_bad_usage(args: tuple[str, ...], said: str) -> None:
    done = emp(*args)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
