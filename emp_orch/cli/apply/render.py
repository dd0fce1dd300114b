"""`emp render`: what each machine of an emp.yaml would run, the compose.yaml of each Docker host, and the objects by
which a Kubernetes cluster starts the boxes of a pool.
"""

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
@click.option(
    "--kubernetes", "pool", metavar="POOL", help="Only the objects for a Kubernetes cluster that starts its boxes."
)
@click.option("--api", "api_url", metavar="URL", help="With --kubernetes: the API as boxes reach it [api.machine_url].")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write the files into this folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: machine → text.")
@click.pass_obj
def render(
    directory: Path,
    file: Path | None,
    machine: str | None,
    host: str | None,
    pool: str | None,
    api_url: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the supervisord.conf of each machine in FILE [emp.yaml; - is stdin], or a host's compose.yaml, or what
    `kubectl apply` takes for a pool.

    With --out files are written: ID.supervisord.conf and NAME.compose.yaml, or POOL.kubernetes.yaml. Nothing is
    applied, and no secret stands in any of them.

    Exit: 0 done, 1 it could not be written, 2 bad emp.yaml or no such machine, host or pool.
    """
    from emp_orch.cli.apply.render_compose import compose_texts
    from emp_orch.fleet.desired.machines import desired_machines
    from emp_orch.render.supervisord import render_machine
    from emp_orch.resources import read_text

    if sum(one is not None for one in (machine, host, pool)) > 1:
        raise UsageError("--machine, --host and --kubernetes exclude each other", hint="give one of them")
    if api_url is not None and pool is None:
        raise UsageError("--api goes with --kubernetes", hint="give both, or neither")
    fleet = _on_allotted(load_fleet(directory, file))
    if pool is not None:
        text = _kubernetes(fleet, pool, api_url)
        _show({pool: text}, {f"{pool}.kubernetes.yaml": text}, out and directory / out, as_json=as_json)
        return
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
    files = {f"{i}.supervisord.conf": text for i, text in texts.items()}
    files |= {f"{name}.compose.yaml": text for name, text in hosts.items()}
    _show(texts if host is None else hosts, files, out and directory / out, as_json=as_json)


def _show(texts: dict[str, str], files: dict[str, str], out: Path | None, *, as_json: bool) -> None:
    """Write `files` into `out`; without it print `texts`."""
    if out is not None:
        _write(out, files)
    elif as_json:
        import json

        click.echo(json.dumps(texts, indent=2))
    else:
        click.echo("\n".join(texts.values()), nl=False)


def _kubernetes(fleet: Fleet, name: str, api_url: str | None) -> str:
    from emp_orch.cli.apply.render_kubernetes import kubernetes_text
    from emp_orch.cli.output.join_lines import checked_url
    from emp_orch.fleet.model.fleet import PoolName
    from emp_orch.images import MACHINE_IMAGE, built_here

    pool = fleet.pools.get(PoolName(name))
    if pool is None:
        raise _unknown("pool", name, fleet.pools)
    url = api_url or fleet.api.machine_url
    if not url:
        raise UsageError(
            "boxes on a cluster would not find the API", hint="set api.machine_url in emp.yaml, or give --api"
        )
    text = kubernetes_text(fleet, pool, api=checked_url(url))
    if built_here(image := pool.template.image or MACHINE_IMAGE):
        hint = f"push it, and name it as pools.{name}.image; or load it on each node"
        click.echo(f"emp: no registry has {image}, which `emp images build` makes; {hint}", err=True)
    return text


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
