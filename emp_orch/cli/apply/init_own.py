"""`emp init --own`: what was copied of another fleet's state goes, so that a copied folder is a fleet of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from emp_orch.errors import EmpError, UsageError


def make_own(folder: Path) -> None:
    """Remove `.emp/` and `logs/` of a copy, and say what is next. Raises UsageError where it is none."""
    from emp_orch.host import ownership
    from emp_orch.layout import Layout

    layout = Layout(folder)
    try:
        ownership.refuse_copies(folder)
    except ownership.CopiedFolder as e:
        original = e.original
    else:
        raise UsageError(
            f"{folder} is no copy of another fleet's folder: its state is its own",
            hint="--own is for what `cp -a` made of a folder in which a fleet was applied",
        )
    for copied in (layout.state, layout.logs):
        try:
            shutil.rmtree(copied)
        except FileNotFoundError:
            continue
        except OSError as e:
            raise EmpError(
                f"cannot remove {e.filename or copied}: {e.strerror}", hint="check who owns the folder"
            ) from e
    click.echo(f"{folder} is a fleet of its own now: .emp/ and logs/, which were copied from {original}, are removed")
    click.echo("next: give it other ports, and a name, in emp.yaml; then emp apply")
