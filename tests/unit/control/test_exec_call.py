"""What a command that a person runs in a machine is given, and how a container's is spoken to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from emp_orch.cli.commands.exec import exec_
from emp_orch.control.status.exec import exec_call, without_secrets
from emp_orch.control.status.location import InContainer
from emp_orch.errors import UsageError
from emp_orch.fleet.model.fleet import SecretRef
from emp_orch.layout import Layout
from emp_orch.runtimes.compose.engine import Engine
from emp_orch.settings import EngineAddress
from support.fleet.fleets import machine


def test_no_secret_is_given() -> None:
    environment = {
        "HUB_REDIS_URL": "redis://ann:hush-hush@127.0.0.1:6379/0",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "TOKEN": "anything",
        "COPIED": "its value",
        "WITHIN": "https://ann:hush-hush@example.com",
        "EMP_SECRETS": "/fleet/secrets.json",
        "LEVEL": "3",
        "PATH": "/bin",
    }
    given = without_secrets(environment, names={"TOKEN"}, values={"hush-hush", "its value", "3"})
    assert given == {
        "HUB_REDIS_URL": "redis://127.0.0.1:6379/0",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "PATH": "/bin",
    }
    # What is too short to tell is looked for as a whole only.
    assert without_secrets({"N": "13"}, names=(), values={"3"}) == {"N": "13"}


@pytest.mark.parametrize("terminal", [True, False])
def test_a_container_is_reached_through_its_engine(tmp_path: Path, terminal: bool) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker command here")
    address = EngineAddress(
        name="a", url="tcp://a.example.com:2376", here=False, ca="/t/ca.pem", cert="/t/c.pem", key="/t/k.pem"
    )
    env = {"GREETING": "hello $HOME", "TOKEN": SecretRef(source="env", name="TOKEN")}
    place = InContainer(
        machine=structs.replace(machine("m", num_gpus=3), env=env), engine=Engine(address), container_id="c0ffee"
    )
    wanted = exec_call(Layout(tmp_path), place, ("ls", "-l", "; rm"), terminal=terminal)
    assert wanted.argv == (
        *(docker, "-H", "tcp://a.example.com:2376"),
        *("--tlsverify", "--tlscacert", "/t/ca.pem", "--tlscert", "/t/c.pem", "--tlskey", "/t/k.pem"),
        *("exec", "--interactive", *(["--tty"] if terminal else [])),
        *("--env", "NUM_GPUS=3", "--env", "GREETING=hello $HOME", "c0ffee", "ls", "-l", "; rm"),
    )


@pytest.mark.parametrize("words", [[], ["--"]])
def test_a_command_is_needed(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(exec_, ["m", *words], obj=tmp_path)
    assert isinstance(done.exception, UsageError)
    assert "no command was given" in done.exception.message
