"""`emp init`, `emp validate`, `emp schema`, as a user types them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from emp_orch.manifest import load_text
from support.comfyui.checkout import make_checkout, make_python
from support.stack.command import emp

BAD = "version: 1\nname: f\nmachines:\n  m: {services: [], num_gpus: two}\n"


def test_init_then_validate(tmp_path: Path) -> None:
    made = emp(tmp_path, "init")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == (
        f"wrote {tmp_path}/emp.yaml and .gitignore\n"
        "next: emp validate   check it\n"
        "      emp apply      bring it up\n"
        "      emp diff       see how what runs differs from what was applied\n"
    )
    assert (tmp_path / ".gitignore").read_text() == ".emp/\nlogs/\n.env\n"
    first = (tmp_path / "emp.yaml").read_text().split("\n")[0]
    pointed = tmp_path / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(pointed.read_text())["$id"] == "urn:emp:schema:1"
    assert stat.S_IMODE((tmp_path / ".emp").stat().st_mode) == 0o700

    valid = emp(tmp_path, "validate")
    assert valid.returncode == 0
    assert valid.stdout == "emp.yaml is valid: fleet basic, 1 machine, 2 services, 2 GPU slots\n"


def test_init_never_overwrites_without_force(tmp_path: Path) -> None:
    (tmp_path / "emp.yaml").write_text("mine")
    (tmp_path / ".gitignore").write_text("mine")
    refused = emp(tmp_path, "init")
    assert refused.returncode == 2
    assert refused.stderr == f"emp: {tmp_path}/emp.yaml is there already\n     `emp init --force` replaces it\n"
    assert (tmp_path / "emp.yaml").read_text() == "mine"
    assert not (tmp_path / ".emp").exists()
    forced = emp(tmp_path, "init", "--force", "--name", "farm-2")
    assert forced.stdout.startswith(f"wrote {tmp_path}/emp.yaml\n")
    assert (tmp_path / ".gitignore").read_text() == "mine"
    assert load_text((tmp_path / "emp.yaml").read_text(), file="emp.yaml", environ={}).name == "farm-2"


@pytest.mark.parametrize("name", ["Big", "", "a\nmachines: {}", "-a", "a" * 64])
def test_init_refuses_a_bad_name(tmp_path: Path, name: str) -> None:
    refused = emp(tmp_path, "init", f"--name={name}")
    assert refused.returncode == 2
    assert refused.stderr.startswith("emp: --name: expected a name of lower-case letters")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["null", "true", "007", "1e3"])
def test_init_keeps_a_name_that_yaml_would_read_otherwise(tmp_path: Path, name: str) -> None:
    assert emp(tmp_path, "init", "--name", name).returncode == 0
    assert f"fleet {name}," in emp(tmp_path, "validate").stdout


def test_init_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = emp(tmp_path, "-C", "file/below", "init")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"emp: cannot write in {tmp_path}/file/below: Not a directory\n")


def test_validate_prints_every_problem(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD + "nam: x\n")
    bad = emp(tmp_path, "validate", "bad.yaml")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == (
        "emp: 2 problems\n"
        'bad.yaml:4:31: machines.m.num_gpus: expected an integer from 0 to 64, found "two"\n'
        "bad.yaml:5:1: nam: unknown key\n"
        '    did you mean "name"?\n'
    )


def test_validate_as_json(tmp_path: Path) -> None:
    (tmp_path / "emp.yaml").write_text(BAD)
    bad = emp(tmp_path, "validate", "--json")
    assert (bad.returncode, bad.stderr) == (2, "")
    assert json.loads(bad.stdout) == {
        "valid": False,
        "problems": [
            {
                "file": "emp.yaml",
                "line": 4,
                "column": 31,
                "path": "machines.m.num_gpus",
                "message": 'expected an integer from 0 to 64, found "two"',
                "hint": "",
            }
        ],
    }
    (tmp_path / "emp.yaml").write_text("version: 1\nname: f\nmachines:\n  m:\n    services: []\n    num_gpus: ${N}\n")
    good = emp(tmp_path, "validate", "--json", N="3")
    assert json.loads(good.stdout) == {
        "valid": True,
        "fleet": "f",
        "machines": 1,
        "services": 0,
        "gpu_slots": 3,
        "problems": [],
    }


def test_validate_asks_about_a_connector_that_looks_misspelt(tmp_path: Path) -> None:
    lines = "  {}: {{scale: per_gpu, command: x, port: {}, connector: {}}}\n"
    (tmp_path / "emp.yaml").write_text(
        "version: 1\nname: f\nservices:\n"
        + "".join(lines.format(*row) for row in (("a", 1, "comfy"), ("b", 2, "simulation"), ("c", 3, "quite-another")))
        + "machines:\n  m: {services: [a, b, c]}\n"
    )
    valid = emp(tmp_path, "validate")
    assert valid.returncode == 0
    assert valid.stderr == 'emp.yaml:4:3: note: this host has no connector "comfy"; did you mean "comfyui"?\n'


COMFYUI = "  c: {{scale: per_gpu, builtin: comfyui, port: 8188, path: {}{}}}\n"


def written(folder: Path, services: str, *machines: str) -> Path:
    """An emp.yaml with `services`, and machines that are given as the rest of a line."""
    lines = [f"  m{n}: {{services: [c], {rest}}}\n" for n, rest in enumerate(machines)]
    text = "version: 1\nname: f\nservices:\n" + services + "machines:\n" + "".join(lines)
    (folder / "emp.yaml").write_text(text)
    return folder


def test_validate_looks_for_the_checkout_that_this_host_is_to_start(tmp_path: Path) -> None:
    missing = emp(written(tmp_path, COMFYUI.format("/no/where", ""), "runtime: process"), "validate")
    assert missing.returncode == 2
    assert missing.stderr == (
        "emp: emp.yaml:4:59: services.c.path: /no/where does not exist\n"
        "    path: the folder that ComfyUI was checked out into\n"
    )
    root = make_checkout(tmp_path / "ComfyUI", venv=None)
    no_python = emp(written(tmp_path, COMFYUI.format(root, ""), "runtime: process"), "validate")
    assert f"services.c.path: {root} has no interpreter of its own: neither {root}/.venv/bin/python" in no_python.stderr
    named = emp(written(tmp_path, COMFYUI.format(root, ", python: /no/python"), "runtime: process"), "validate")
    assert "services.c.python: there is no /no/python" in named.stderr
    make_python(root / "venv" / "bin" / "python")
    whole = emp(written(tmp_path, COMFYUI.format(root, ""), "runtime: process"), "validate")
    assert (whole.returncode, whole.stderr) == (0, "")


def test_validate_cannot_know_what_others_hold(tmp_path: Path) -> None:
    here = COMFYUI.format("/no/where", "")
    assert emp(written(tmp_path, here, "runtime: external"), "validate").returncode == 0
    boxed = emp(
        written(tmp_path, here, "runtime: compose", "runtime: compose, volumes: ['/srv:/no'], replicas: 2"), "validate"
    )
    assert boxed.returncode == 0
    note = "m0 runs c from /no/where, which its image must hold: none of its volumes does"
    assert boxed.stderr == f"emp.yaml:6:3: note: {note}\n"
    brought = COMFYUI.format("/no/where", ", install: {command: git clone x /no/where, creates: /no/where}")
    assert emp(written(tmp_path, brought, "runtime: process"), "validate").returncode == 0


def test_validate_notes_slots_of_a_command_that_share_one_output_folder(tmp_path: Path) -> None:
    lines = "  c: {{scale: {}, port: 8188, connector: comfyui, command: 'python /c/main.py --port ${{port}}{}'}}\n"
    shared = emp(written(tmp_path, lines.format("per_gpu", ""), "runtime: process"), "validate")
    what = "the slots of c write into one output folder; builtin comfyui gives each its own (docs/comfyui.md)"
    assert (shared.returncode, shared.stderr) == (0, f"emp.yaml:4:3: note: {what}\n")
    one = emp(written(tmp_path, lines.format("per_gpu", " --output-directory /o"), "runtime: process"), "validate")
    assert what in one.stderr, "a folder of theirs, but one for all"
    for scale, more in (("per_machine", ""), ("per_gpu", " --output-directory /o/${gpu}")):
        apart = emp(written(tmp_path, lines.format(scale, more), "runtime: process"), "validate")
        assert (apart.returncode, apart.stderr) == (0, "")


def test_validate_without_a_file(tmp_path: Path) -> None:
    missing = emp(tmp_path, "validate")
    assert missing.returncode == 2
    assert missing.stderr == "emp: emp.yaml: no such file\n    `emp init` writes one\n"


def test_schema_is_json_schema(tmp_path: Path) -> None:
    shown = emp(tmp_path, "schema")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
