"""How `emp images build` asks docker, and which line of its answer is the reason; what `prune` takes for needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.control.images.docker import Docker, reason
from emp_orch.control.images.prune import unneeded
from emp_orch.errors import EmpError
from emp_orch.images import CONTROL_IMAGE, MACHINE_IMAGE


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "it gave no reason"),
        ("Cannot connect to the Docker daemon\n", "Cannot connect to the Docker daemon"),
        (
            "Unable to find image 'no:such' locally\n"
            "docker: Error response from daemon: pull access denied for no.\n"
            "See 'docker run --help'.\n",
            "docker: Error response from daemon: pull access denied for no.",
        ),
        (
            "docker: Error response from daemon: no space left on device\n\nRun 'docker run --help' for more\n",
            "docker: Error response from daemon: no space left on device",
        ),
        (
            "#5 ERROR: process did not complete\n------\nERROR: failed to solve: exit code: 1\nView build details: x\n",
            "ERROR: failed to solve: exit code: 1",
        ),
    ],
)
def test_the_reason_is_the_line_that_says_why(said: str, why: str) -> None:
    assert reason(said) == why


def docker_that(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A docker command of this script, which writes down how it was called: the client's part, alike with every one."""
    calls = folder / "calls"
    docker = folder / "docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n{script}\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    return calls


def build(folder: Path) -> None:
    Docker().build(folder, tag="t:1", arguments={"BASE": "b"}, labels={"l": "v"}, stage="emp.stage=s")


def test_a_build_takes_buildx_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = docker_that(tmp_path, monkeypatch, 'case "$1" in context) echo far;; esac')
    build(tmp_path)
    (built,) = [c for c in calls.read_text().splitlines() if " build " in f" {c} "]
    assert built == f"buildx build --builder far --load --tag t:1 --build-arg BASE=b --label l=v {tmp_path}"


def test_without_buildx_nothing_without_a_name_is_left_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = docker_that(
        tmp_path, monkeypatch, 'case "$1" in image) exit 0;; build) echo "ERROR: no space left";; esac; exit 1'
    )
    with pytest.raises(EmpError, match="docker build of t:1 failed: ERROR: no space left"):
        build(tmp_path)
    assert calls.read_text().splitlines()[-1] == "image prune --force --filter label=emp.stage=s"


def listed(*images: tuple[str, str]) -> list[dict[str, str]]:
    """As `docker image ls` has them."""
    return [{"Repository": name.rpartition(":")[0], "Tag": name.rpartition(":")[2], "ID": i} for name, i in images]


def test_what_nothing_needs_is_pruned() -> None:
    found = listed(
        ("emp-kept/farm:1", "1"),
        ("emp-kept/farm:2", "2"),
        ("emp-kept/farm:3", "3"),
        (MACHINE_IMAGE, "4"),
        (CONTROL_IMAGE, "5"),
        ("emp-machine:0.0.1", "6"),
        ("emp-machine:mine", "7"),
        ("<none>:<none>", "8"),
        ("<none>:<none>", "8"),
        ("emp-machine:0.0.2", "9"),
    )
    assert unneeded(found, {"1", "2", "9"}) == ("emp-kept/farm:3", "emp-machine:0.0.1", "8")
