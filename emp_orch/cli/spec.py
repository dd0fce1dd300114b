"""`emp init`, `emp validate`, `emp schema`: the file before anything runs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.errors import EmpError, Exit, UsageError

if TYPE_CHECKING:
    from emp_orch.fleet.model import Service

# What a fleet's folder must not bring into a repository.
_IGNORED = (".emp/", "logs/", ".env")
_MODELINE = "# yaml-language-server: $schema=schema/emp.schema.json\n"
_SCHEMA = ".emp/emp.schema.json"


@click.command("init")
@click.option("--force", is_flag=True, help="Replace an emp.yaml that is there.")
@click.option("--name", metavar="N", help="Name of the fleet; without it, basic.")
@click.pass_obj
def init(folder: Path, force: bool, name: str | None) -> None:
    """Write an emp.yaml that runs on any machine, and say what to do next."""
    from emp_orch import resources
    from emp_orch.spec import load_text

    text = resources.read_text("emp.yaml").replace(_MODELINE, f"# yaml-language-server: $schema={_SCHEMA}\n", 1)
    if name is not None:
        _check_name(name)
        text = text.replace("\nname: basic\n", f"\nname: {json.dumps(name)}\n", 1)
    load_text(text, file="emp.yaml", environ={})
    target = folder / "emp.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with target.open("w" if force else "x", encoding="utf-8") as f:
            f.write(text)
        (folder / ".emp").mkdir(mode=0o700, exist_ok=True)
        (folder / _SCHEMA).write_text(resources.read_text("schema/emp.schema.json"), encoding="utf-8")
        ignoring = _write_gitignore(folder)
    except FileExistsError:
        raise UsageError(f"{target} is there already", hint="`emp init --force` replaces it") from None
    except OSError as e:
        raise EmpError(f"cannot write in {folder}: {e.strerror}", hint="choose a folder you may write in") from e
    click.echo(f"wrote {target}{' and .gitignore' if ignoring else ''}")
    click.echo("next: emp validate   check it")
    click.echo("      emp apply      bring it up")
    click.echo("      emp diff       see how what runs differs from the file")


def _check_name(name: str) -> None:
    """A fleet's name as the schema wants it; said of the option, not of a line that nobody wrote."""
    from emp_orch.spec import schema

    wanted = schema.sub("name")
    if not re.fullmatch(wanted["pattern"].removesuffix("$"), name):
        raise UsageError(f"--name: expected {wanted['title']}", hint="for example: emp init --name render-farm")


def _write_gitignore(folder: Path) -> bool:
    """Write a .gitignore where there is none; one that is there is its owner's."""
    try:
        with (folder / ".gitignore").open("x", encoding="utf-8") as f:
            f.writelines(f"{line}\n" for line in _IGNORED)
    except FileExistsError:
        return False
    return True


@click.command("validate")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def validate(folder: Path, file: Path | None, as_json: bool) -> None:
    """Check FILE (emp.yaml) and name every problem in it."""
    from emp_orch.spec import ConfigError, comfyui, load

    path = folder / (file or "emp.yaml")
    try:
        fleet = load(path, os.environ, here=True)
    except ConfigError as e:
        if not as_json:
            raise
        click.echo(json.dumps({"valid": False, "problems": [_problem(p) for p in e.problems]}, indent=2))
        sys.exit(Exit.USAGE)
    counts = {
        "machines": len(fleet.machines),
        "services": len(fleet.services),
        "gpu_slots": sum(m.num_gpus for m in fleet.machines),
    }
    if as_json:
        click.echo(json.dumps({"valid": True, "fleet": fleet.name, **counts, "problems": []}, indent=2))
        return
    parts = [_count(number, what.replace("gpu_slot", "GPU slot")) for what, number in counts.items()]
    click.echo(f"{file or 'emp.yaml'} is valid: fleet {fleet.name}, {', '.join(parts)}")
    for service in fleet.services.values():
        _note_connector(service)
    for note in comfyui.notes(fleet):
        click.echo(note, err=True)


def _note_connector(service: Service) -> None:
    """Ask on stderr whether a connector that this host lacks is a slip; machines may have more of them."""
    from emp_orch.connectors.registry import nearest_to

    if service.connector is not None and (near := nearest_to(service.connector)):
        found = f'this host has no connector "{service.connector}"'
        click.echo(f'{service.origin}: note: {found}; did you mean "{near}"?', err=True)


def _count(number: int, plural: str) -> str:
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"


def _problem(problem: Any) -> dict[str, Any]:
    return {k: getattr(problem, k) for k in ("file", "line", "column", "path", "message", "hint")}


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of emp.yaml, for editors and other tools."""
    from emp_orch.spec import schema as spec_schema

    click.echo(spec_schema.text(), nl=False)
