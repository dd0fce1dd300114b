"""`emp images build | list`: what machines in containers, and a control plane in containers, are made from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from emp_orch.errors import UsageError
from emp_orch.images import BUILD_LABEL, CONTROL_IMAGE, DEFAULT_BASE, DEFAULT_CLI, MACHINE_IMAGE, STORES, store_packages

_host = click.option("--host", metavar="URL", help="The engine, as DOCKER_HOST names it: ssh://user@box, unix:///….")


@click.group()
def images() -> None:
    """The images that machines and a control plane in containers are made from."""


@images.command()
@click.option("--base", default=DEFAULT_BASE, show_default=True, help="An image with Python 3.11 or newer.")
@click.option("--tag", default=MACHINE_IMAGE, show_default=True, help="What the machine image is called.")
@click.option("--control", is_flag=True, help=f"Then the control plane's image on it, {CONTROL_IMAGE}.")
@click.option("--cli", default=DEFAULT_CLI, show_default=True, help="Where --control has docker and Compose from.")
@click.option(
    "--store",
    "stores",
    type=click.Choice([name for name, *_ in STORES]),
    multiple=True,
    help="With what an artifact store needs there; as often as there are stores.",
)
@_host
def build(base: str, tag: str, control: bool, cli: str, stores: tuple[str, ...], host: str | None) -> None:
    """Build the machine image on an engine, from the emp that runs here; does nothing when nothing has changed."""
    from emp_orch.control.images.build import build as build_machine
    from emp_orch.control.images.build import build_control
    from emp_orch.control.images.docker import Docker

    for name, value in (("--base", base), ("--tag", tag), ("--cli", cli)):
        if not value or value.startswith("-") or any(c.isspace() for c in value):
            raise UsageError(f"{name} {value!r} is not the name of an image", hint="for example emp-machine:mine")
    docker = Docker(_engine(host))
    _told(tag, build_machine(docker, tag=tag, base=base, say=_say, extra=store_packages(stores)))
    if control:
        _told(CONTROL_IMAGE, build_control(docker, tag=CONTROL_IMAGE, machine=tag, cli=cli, say=_say))


def _say(text: str) -> None:
    click.echo(text, err=True)


def _told(tag: str, new: bool) -> None:
    click.echo(f"built {tag}" if new else f"{tag} is up to date")


@images.command("list")
@_host
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_images(host: str | None, as_json: bool) -> None:
    """The images of emp that an engine has."""
    from emp_orch.cli.output.text import table
    from emp_orch.control.images.docker import Docker

    columns = {"image": "Repository", "tag": "Tag", "id": "ID", "created": "CreatedSince", "size": "Size"}
    found = [
        {column: str(image.get(word, "")).removeprefix("sha256:") for column, word in columns.items()}
        for image in Docker(_engine(host)).images(f"label={BUILD_LABEL}")
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo(table([c.upper() for c in columns], [list(image.values()) for image in found]))
    else:
        click.echo("no image of emp there; `emp images build` makes it", err=True)


@images.command()
@_host
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def prune(directory: Path, host: str | None, as_json: bool) -> None:
    """Remove the images of emp that nothing needs: builds of before, and what was kept for generations.

    Needed is what a container is made from, what this version builds, and what `emp rollback` of this folder's fleet
    goes back to, as far as its Redis answers.
    """
    from emp_orch.control.images.docker import Docker
    from emp_orch.control.images.prune import needed_here, pruned

    removed = pruned(Docker(_engine(host)), needed_here(directory, _say))
    if as_json:
        click.echo(json.dumps({"removed": removed}))
    elif removed:
        click.echo("\n".join(f"removed {name}" for name in removed))
    else:
        click.echo("every image of emp there is needed")


def _engine(host: str | None) -> str | None:
    if host is not None and "://" not in host:
        raise UsageError(f"--host {host!r} is not the URL of a Docker Engine", hint="for example ssh://user@gpu-a")
    return host
