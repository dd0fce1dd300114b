"""`emp init`: a file to start from, with the simulation or with a checkout of ComfyUI."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import click
from msgspec import Struct

from emp_orch.errors import EmpError, UsageError
from emp_orch.host.gpus import Broken, Look, NoDriver
from emp_orch.render.quoting import yaml_text

# What a fleet's folder must not bring into a repository.
_IGNORED = (".emp/", "logs/", ".env")
_MODELINE = "# yaml-language-server: $schema=schema/emp.schema.json\n"
_SCHEMA = ".emp/emp.schema.json"
_NAME = "basic"


class Slots(Struct, frozen=True, kw_only=True):
    """How many GPU slots a machine gets. `gpus` as emp.yaml has it; empty: ComfyUI uses the CPU. `note` for people."""

    num_gpus: int
    gpus: str
    note: str = ""


def slots(look: Callable[[], Look], asked: int | None) -> Slots:
    """A slot for each GPU that a driver shows, or `asked` of them. Raises EmpError for what no driver here can give."""
    try:
        found = look()
    except NoDriver:
        found = Look()
    except Broken as e:
        if asked is None:
            raise EmpError(f"the NVIDIA driver of this host does not work: {e}", hint="--gpus N says how many") from e
        return Slots(num_gpus=asked, gpus="nvidia", note=f"the NVIDIA driver of this host does not work: {e}")
    if not found.gpus and not found.error:
        return Slots(num_gpus=asked or 1, gpus="")
    if not found.gpus or (asked or 0) > len(found.gpus):
        shown = f"{len(found.gpus)} usable GPU{'' if len(found.gpus) == 1 else 's'}"
        wrong = f" ({found.error})" if found.error else ""
        raise UsageError(f"the NVIDIA driver of this host shows {shown}{wrong}", hint="ask for fewer with --gpus N")
    number = asked or len(found.gpus)
    if not found.error:
        return Slots(num_gpus=number, gpus="nvidia")
    # Indices would count the ones that do not answer.
    ids = ", ".join(yaml_text(gpu.uuid) for gpu in found.gpus[:number])
    return Slots(num_gpus=number, gpus=f"{{kind: nvidia, ids: [{ids}]}}", note=f"left out: {found.error}")


@click.command("init")
@click.option("--force", is_flag=True, help="Replace an emp.yaml that is there.")
@click.option("--name", metavar="N", help="Name of the fleet; without it, basic.")
@click.option(
    "--comfyui", type=click.Path(path_type=Path), metavar="PATH", help="Run ComfyUI from this checkout, on each GPU."
)
@click.option("--python", metavar="PATH", help="Its interpreter; without it, that of .venv or venv in the checkout.")
@click.option(
    "--gpus", type=click.IntRange(1, 64), metavar="N", help="So many GPU slots; without it, one for each GPU."
)
@click.option("--own", is_flag=True, help="In a copy of a fleet's folder: make it the folder of a fleet of its own.")
@click.pass_obj
def init(
    folder: Path, force: bool, name: str | None, comfyui: Path | None, python: str | None, gpus: int | None, own: bool
) -> None:
    """Write an emp.yaml that runs on any machine, and say what to do next.

    With --own nothing is written: emp.yaml stays, and .emp/ and logs/ go, which were copied from another fleet.

    With --comfyui it runs the real program, on the GPUs that an NVIDIA driver shows, or else on the CPU. Nothing is
    written when PATH is no checkout that can be started.
    """
    from emp_orch.host import gpus as devices
    from emp_orch.manifest import load_text

    if own:
        from emp_orch.cli.apply.init_own import make_own

        make_own(folder)
        return
    if comfyui is None and (python is not None or gpus is not None):
        raise UsageError(
            "--python and --gpus go with --comfyui", hint="in the default emp.yaml, NUM_GPUS says how many"
        )
    if name is not None:
        _check_name(name)
    if comfyui is None:
        text = _on_cards(_default(name or _NAME), devices.look_within)
    else:
        chosen = slots(devices.look, gpus)
        text = _of_checkout(name or _NAME, _plain(folder / comfyui), python, chosen)
        if chosen.note:
            click.echo(f"note: {chosen.note}", err=True)
    load_text(text, file="emp.yaml", environ={})
    _write(folder, text, force=force)


def _default(name: str) -> str:
    """The emp.yaml that ships."""
    from emp_orch import resources

    text = resources.read_text("emp.yaml").replace(_MODELINE, f"# yaml-language-server: $schema={_SCHEMA}\n", 1)
    return text.replace(f"\nname: {_NAME}\n", f"\nname: {yaml_text(name)}\n", 1) if name != _NAME else text


def _on_cards(text: str, look: Callable[[], Look]) -> str:
    """The default file with a slot for each GPU that a driver shows; unchanged where none does."""
    try:
        found = look()
    except (NoDriver, Broken):
        return text
    if not found.gpus or found.error:
        return text
    slots = f"num_gpus: ${{NUM_GPUS:-{len(found.gpus)}}} "
    return text.replace("num_gpus: ${NUM_GPUS:-2} ", slots, 1).replace(
        "    services: [simulation, comfyui]\n",
        "    gpus: nvidia                     # each slot is a card of this host\n"
        "    services: [simulation, comfyui]\n",
        1,
    )


def _of_checkout(name: str, path: Path, python: str | None, chosen: Slots) -> str:
    """An emp.yaml that runs the checkout at `path`. Raises UsageError naming what it lacks."""
    from jinja2 import Environment, StrictUndefined

    from emp_orch import resources
    from emp_orch.comfyui.checkout import NotUsable, look

    if python is not None and "/" in python:
        python = str(_plain(Path(python)))
    try:
        look(path, python)
    except NotUsable as e:
        way_out = "--python: the interpreter that it was installed for" if e.key == "python" else e.hint
        raise UsageError(f"--comfyui: {e.message}", hint=way_out.replace("path:", "--comfyui:")) from e
    # The output is YAML, not HTML; yaml_text is its escaping.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    return environment.from_string(resources.read_text("templates/emp-comfyui.yaml.j2")).render(
        schema=_SCHEMA,
        name=name if name == _NAME else yaml_text(name),
        path=yaml_text(str(path)),
        python=None if python is None else yaml_text(python),
        cpu=not chosen.gpus,
        gpus=chosen.gpus,
        num_gpus=chosen.num_gpus,
    )


def _plain(path: Path) -> Path:
    """`path`, absolute and without `..`, where that leads to the same; a link that is named stays one."""
    plain = Path(os.path.normpath(path.absolute()))
    return plain if plain.exists() and plain.samefile(path) else path.absolute()


def _write(folder: Path, text: str, *, force: bool) -> None:
    """Write emp.yaml, its schema and a .gitignore, and say what comes next. Raises EmpError."""
    from emp_orch import resources

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
    click.echo("      emp diff       see how what runs differs from what was applied")


def _check_name(name: str) -> None:
    """A fleet's name as the schema wants it; said of the option, not of a line that nobody wrote."""
    from emp_orch.manifest import schema_reader

    wanted = schema_reader.sub("name")
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
