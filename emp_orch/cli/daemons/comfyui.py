"""`emp comfyui`: what a machine starts for each slot of a `builtin: comfyui` service; it becomes ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from emp_orch.comfyui.checkout import Checkout

# EX_CONFIG of sysexits.h: what was asked for cannot be started, and starting it again will not help.
CANNOT_START = 78


@click.command("comfyui")
@click.option("--path", type=click.Path(path_type=Path), required=True, help="The checkout of ComfyUI.")
@click.option(
    "--python", default=None, metavar="PATH", help="Its interpreter; without it, that of .venv or venv in it."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8188, show_default=True)
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path(), help="Its files; else here.")
@click.option("--cwd", type=click.Path(path_type=Path), default=None, help="Its working directory; else the checkout.")
@click.option("--model-folder", "model_folders", multiple=True, metavar="DIR", help="More models, laid out as models/.")
@click.option("--model-paths", default="{}", metavar="JSON", help="Sections of extra_model_paths.yaml.")
@click.option("--upload-mib", type=click.IntRange(min=1), default=None, help="The largest file that jobs bring, MiB.")
@click.option("--check", "only_check", is_flag=True, help="Say whether the checkout can be started, and end.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def comfyui(
    ctx: click.Context,
    path: Path,
    python: str | None,
    host: str,
    port: int,
    folder: Path,
    cwd: Path | None,
    model_folders: tuple[str, ...],
    model_paths: str,
    upload_mib: int | None,
    only_check: bool,
    args: tuple[str, ...],
) -> None:
    """Start the ComfyUI in a checkout, with folders of its own below --dir. What follows `--` is ComfyUI's."""
    import os
    import sys

    import msgspec

    from emp_orch.comfyui import checkout, slot
    from emp_orch.errors import EmpError

    try:
        found = checkout.look(path, python)
        _tell(found)
        if only_check:
            return
        try:
            sections = msgspec.json.decode(model_paths, type=dict[str, dict[str, str | bool]])
        except msgspec.MsgspecError as e:
            raise EmpError(f"--model-paths: {e}", hint='for example {"a": {"base_path": "/srv", "vae": "vae"}}') from e
        ours = slot.Slot(
            folder=ctx.obj / folder,
            host=host,
            port=port,
            args=args,
            upload_mib=upload_mib,
            model_folders=model_folders,
            model_paths=sections,
        )
        slot.prepare(ours, found)
        argv = slot.command(ours, found)
        click.echo(f"its files are in {ours.folder}")
        sys.stdout.flush()
        os.chdir(path if cwd is None else ctx.obj / cwd)
        os.execve(argv[0], argv, slot.environment(found, os.environ))  # noqa: S606  # no shell: argv as we made it
    except EmpError as e:
        sys.exit(_fail(f"{e.message} ({e.hint})" if e.hint else e.message))
    except OSError as e:
        sys.exit(_fail(f"{e.filename or path}: {e.strerror}"))


def _tell(found: Checkout) -> None:
    """What is started, and what its version cannot do, for the log."""
    version = f"ComfyUI {found.version}" if found.version else "ComfyUI"
    click.echo(f"{version} in {found.path}, run by {found.python}")
    for option, why in found.lacks.items():
        click.echo(f"left out {option}, which this version does not know: {why}")


def _fail(why: str) -> int:
    click.echo(f"emp: cannot start ComfyUI: {why}", err=True)
    return CANNOT_START
