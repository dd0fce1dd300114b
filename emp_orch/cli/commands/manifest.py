"""`emp validate`, `emp schema`: the file before anything runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.output.options import folder_of, load_fleet
from emp_orch.errors import Exit

if TYPE_CHECKING:
    from emp_orch.fleet.model.fleet import Service


@click.command("validate")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def validate(folder: Path, file: Path | None, as_json: bool) -> None:
    """Check FILE [emp.yaml], or standard input for -, and name every problem in it."""
    from emp_orch.manifest import ConfigError, environment, is_virtual_environment, notes, notes_of_shell
    from emp_orch.manifest.checks.devices import notes_here

    try:
        fleet = load_fleet(folder, file, here=True)
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
    named = "standard input" if str(file) == "-" else file or "emp.yaml"
    click.echo(f"{named} is valid: fleet {fleet.name}, {', '.join(parts)}")
    for service in fleet.services.values():
        _note_connector(service)
    if is_virtual_environment(folder_of(folder, file) / ".env"):
        click.echo(".env: note: a virtual environment of Python, nothing is read from it", err=True)
    known = environment(folder_of(folder, file) / "emp.yaml", os.environ)
    for note in (*notes(fleet), *notes_of_shell(fleet, os.environ, known=known), *notes_here(fleet)):
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
    from emp_orch.manifest import schema_reader

    click.echo(schema_reader.text(), nl=False)
