"""`emp render`: the supervisord.conf that each machine of an emp.yaml would run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from emp_orch.errors import EmpError, UsageError


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--machine", metavar="ID", help="Only this machine.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write ID.supervisord.conf files there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: machine → text.")
@click.pass_obj
def render(directory: Path, file: Path | None, machine: str | None, out: Path | None, as_json: bool) -> None:
    """Print the supervisord.conf of each machine in FILE [emp.yaml]. Nothing is applied, and no secret stands in it.

    Exit: 0 done, 1 it could not be written, 2 bad emp.yaml or no such machine.
    """
    from emp_orch import spec
    from emp_orch.fleet.desired import desired_machines
    from emp_orch.render.supervisord import render_machine
    from emp_orch.resources import read_text

    machines = desired_machines(spec.load(directory / (file or "emp.yaml"), os.environ))
    if machine is not None and machine not in machines:
        raise _unknown(machine, list(machines))
    template = read_text("templates/supervisord.conf.j2")
    texts = {str(i): render_machine(template, m) for i, m in machines.items() if machine in (None, i)}
    if out is not None:
        _write(directory / out, texts)
    elif as_json:
        import json

        click.echo(json.dumps(texts, indent=2))
    else:
        click.echo("\n".join(texts.values()), nl=False)


def _unknown(machine: str, known: list[str]) -> UsageError:
    import difflib

    near = difflib.get_close_matches(machine, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
    return UsageError(f"emp.yaml has no machine {machine!r}", hint=hint)


def _write(folder: Path, texts: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for machine_id, text in texts.items():
            path = folder / f"{machine_id}.supervisord.conf"
            path.write_text(text, encoding="utf-8")
            click.echo(path)
    except OSError as e:
        raise EmpError(f"cannot write {e.filename}: {e.strerror}", hint="choose a folder you may write in") from e
