"""The options of the provider `command`: what is taken, what is wrong with the rest, and the secrets in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emp_orch.control.apply.proposal import program_secrets, read_proposal, secret_files
from emp_orch.errors import UsageError
from emp_orch.fleet.model.fleet import SecretRef
from emp_orch.options import providers
from emp_orch.options.base import WrongOption
from emp_orch.options.provider_command import Options, options_of

PROGRAM = {"command": ["python3", "./mine.py"]}


def test_a_program_is_enough() -> None:
    assert options_of(PROGRAM) == Options(command=("python3", "./mine.py"))
    providers.check("command", PROGRAM)
    assert providers.references("command", PROGRAM) == ()


def test_all_of_them() -> None:
    env = {"REGION": "eu", "KEY": {"env": "RENT_KEY"}, "CERT": {"file": "secrets/cert.pem"}}
    given = {**PROGRAM, "timeout": "5s", "every": "1m", "env": env}
    refs = {"KEY": SecretRef(source="env", name="RENT_KEY"), "CERT": SecretRef(source="file", name="secrets/cert.pem")}
    assert options_of(given) == Options(
        command=("python3", "./mine.py"), timeout_s=5.0, every_s=60.0, env={"REGION": "eu", **refs}
    )
    assert dict(providers.references("command", given)) == {f"env.{name}": ref for name, ref in refs.items()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "command is missing"),
        ({"command": "./mine.py"}, "command must be a list of 1 to 100 words, found './mine.py'"),
        ({"command": []}, "command must be a list"),
        ({"command": ["x"] * 101}, "command must be a list"),
        ({"command": [""]}, "command.0 must be text"),
        ({"command": ["x", 7]}, "command.1 must be text"),
        ({"command": ["x", "a\0b"]}, "command.1 must be text"),
        ({**PROGRAM, "comand": 1}, "comand is unknown"),
        ({**PROGRAM, "timeout": 5}, "timeout must be a duration of 1s to 80s"),
        ({**PROGRAM, "timeout": "81s"}, "timeout must be a duration of 1s to 80s"),
        ({**PROGRAM, "timeout": "0s"}, "timeout must be a duration of 1s to 80s"),
        ({**PROGRAM, "every": "soon"}, "every must be a duration of 0s to 600s"),
        ({**PROGRAM, "env": ["A=b"]}, "env must be a mapping"),
        ({**PROGRAM, "env": {f"A{n}": "" for n in range(101)}}, "env must be a mapping of at most 100"),
        ({**PROGRAM, "env": {"A-B": "x"}}, "env.A-B is no name of a variable"),
        ({**PROGRAM, "env": {"EMP_DEBUG": "1"}}, "env.EMP_DEBUG is no name of a variable"),
        ({**PROGRAM, "env": {"A": 1}}, "env.A must be text"),
        ({**PROGRAM, "env": {"A": "x" * 4097}}, "env.A must be text"),
        ({**PROGRAM, "env": {"A": {"env": "a b"}}}, "env.A must be text"),
        ({**PROGRAM, "env": {"A": {"file": ""}}}, "env.A must be text"),
        ({**PROGRAM, "env": {"A": {"value": "x"}}}, "env.A must be text"),
        ({**PROGRAM, "env": {"A": {"env": "B", "file": "c"}}}, "env.A must be text"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongOption, match="provider_options of the command provider") as e:
        options_of(given)
    assert message in e.value.message


FLEET = """\
version: 1
name: f
services:
  s: {scale: per_gpu, command: s}
pools:
  p:
    services: [s]
    size: 0..2
    env: {HF_TOKEN: {env: HF_TOKEN}, VERSION: 1.10}
    provider: command
    provider_options:
      command: [python3, ./mine.py, --version, 1.10, "${REGION}"]
      env: {LEVEL: 1.10, KEY: {env: RENT_KEY}, CERT: {file: cert}}
"""


def test_the_secrets_of_a_pool_are_resolved_and_its_words_are_text(tmp_path: Path) -> None:
    file = tmp_path / "emp.yaml"
    file.write_text(FLEET)
    (tmp_path / "cert").write_text("of a rental service\n")
    _, found = read_proposal(file, {"HF_TOKEN": "one-token", "RENT_KEY": "open-sesame", "REGION": "eu"})
    assert found.secrets.items() >= {
        ("env:HF_TOKEN", "one-token"),
        ("env:RENT_KEY", "open-sesame"),
        ("file:cert", "of a rental service"),
    }
    (pool,) = found.fleet.pools.values()
    assert options_of(pool.options).command == ("python3", "./mine.py", "--version", "1.10", "eu")
    assert options_of(pool.options).env["LEVEL"] == "1.10" == pool.template.env["VERSION"]
    assert program_secrets(found.fleet) >= {"env:RENT_KEY", "file:cert"}
    assert secret_files(found.fleet, tmp_path) == {tmp_path / "cert"}
    with pytest.raises(UsageError, match=r"pools\.p\.provider_options\.env\.KEY: the environment has no RENT_KEY"):
        read_proposal(file, {"HF_TOKEN": "one-token", "REGION": "eu"})
    with pytest.raises(UsageError, match=r"pools\.p\.env\.HF_TOKEN: the environment has no HF_TOKEN"):
        read_proposal(file, {"RENT_KEY": "open-sesame", "REGION": "eu"})
