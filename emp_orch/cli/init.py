"""`emp init`: a file to start from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from emp_orch.errors import EmpError, UsageError

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
