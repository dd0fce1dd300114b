"""`emp render`: what each machine of an emp.yaml would run, and the compose.yaml of each Docker host."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.output.options import folder_of, load_fleet
from emp_orch.errors import EmpError, UsageError

if TYPE_CHECKING:
    from emp_orch.fleet.model.fleet import Fleet


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--machine", metavar="ID", help="Only the supervisord.conf of this machine.")
@click.option("--host", metavar="NAME", help="Only the compose.yaml of this Docker host.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write the files into this folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: machine → text.")
@click.pass_obj
def render(
    directory: Path, file: Path | None, machine: str | None, host: str | None, out: Path | None, as_json: bool
) -> None:
    """Print the supervisord.conf of each machine in FILE [emp.yaml; - is stdin], or a host's compose.yaml.

    With --out both are written: ID.supervisord.conf and NAME.compose.yaml. Nothing is applied, and no secret stands
    in any of them.

    Exit: 0 done, 1 it could not be written, 2 bad emp.yaml or no such machine or host.
    """
    from emp_orch.cli.apply.render_compose import compose_texts
    from emp_orch.fleet.desired.machines import desired_machines
    from emp_orch.render.supervisord import render_machine
    from emp_orch.resources import read_text

    if machine is not None and host is not None:
        raise UsageError("--machine and --host exclude each other", hint="give one of them")
    fleet = _on_allotted(load_fleet(directory, file))
    machines = desired_machines(fleet)
    if machine is not None and machine not in machines:
        raise _unknown("machine", machine, machines)
    composed = {} if machine is not None else compose_texts(fleet, folder_of(directory, file).absolute())
    if host is not None and host not in composed:
        raise _unknown("machine on Docker host", host, composed)
    template = read_text("templates/supervisord.conf.j2")
    wanted = {i: m for i, m in machines.items() if machine in (None, i) and host is None}
    texts = {str(i): render_machine(template, m) for i, m in wanted.items()}
    hosts = {name: text for name, text in composed.items() if host in (None, name)}
    if out is not None:
        files = {f"{i}.supervisord.conf": text for i, text in texts.items()}
        _write(directory / out, files | {f"{name}.compose.yaml": text for name, text in hosts.items()})
    elif as_json:
        import json

        click.echo(json.dumps(texts if host is None else hosts, indent=2))
    else:
        click.echo("\n".join((texts if host is None else hosts).values()), nl=False)


def _on_allotted(fleet: Fleet) -> Fleet:
    """`fleet` on the GPUs that this shell was allotted, as an apply from here would have it."""
    from msgspec import structs

    from emp_orch.fleet.model import allotment
    from emp_orch.fleet.model.hosts import LOCAL, is_here
    from emp_orch.host import gpus

    given = allotment.read(os.environ, gpus.uuids)
    if given is None:
        return fleet
    here = tuple(name for name in {LOCAL: None, **fleet.hosts} if is_here(fleet.hosts.get(name)))
    return structs.replace(fleet, allotment=structs.replace(given, hosts=here))


def _unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    import difflib

    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
    return UsageError(f"emp.yaml has no {what} {name!r}", hint=hint)


def _write(folder: Path, files: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            path.write_text(text, encoding="utf-8")
            click.echo(path)
    except OSError as e:
        raise EmpError(f"cannot write {e.filename}: {e.strerror}", hint="choose a folder you may write in") from e
