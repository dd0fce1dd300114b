"""One slot's ComfyUI: the folders that nobody else writes to, and the command line that says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from emp_orch.comfyui import models, options
from emp_orch.comfyui.checkout import MAIN, Checkout, foreign_path
from emp_orch.errors import EmpError

EXTRA_MODELS = "extra_model_paths.yaml"
DATABASE = "comfyui.db"
# What an upload has beside the file: the names and borders of its parts.
UPLOAD_MARGIN_MIB = 1
# Characters that a URL of SQLAlchemy, or alembic's configuration, would read as something else.
_NO_PATH_OF_A_URL = frozenset("%?#")


class Slot(Struct, frozen=True, kw_only=True):
    """`folder` is absolute. `args` are a user's own words, after emp's. `upload_mib`: the largest file that jobs bring;
    None: ComfyUI's own limit.
    """

    folder: Path
    host: str
    port: int
    args: tuple[str, ...] = ()
    upload_mib: int | None = None
    model_folders: tuple[str, ...] = ()
    model_paths: dict[str, dict[str, str | bool]] = {}

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def input(self) -> Path:
        return self.folder / "input"

    @property
    def user(self) -> Path:
        return self.folder / "user"

    @property
    def database_url(self) -> str:
        """In memory, so still the slot's own, where the folder's name cannot stand in a URL."""
        path = str(self.user / DATABASE)
        return "sqlite:///:memory:" if _NO_PATH_OF_A_URL & set(path) else f"sqlite:///{path}"


def prepare(slot: Slot, checkout: Checkout) -> None:
    """Make the slot's folders, and its file of extra_model_paths where it needs one. Raises EmpError."""
    try:
        # ComfyUI makes temp/ itself, and empties it; it wants the user's folder to be there.
        for folder in (slot.output, slot.input, slot.user):
            folder.mkdir(parents=True, exist_ok=True)
        content = models.text(map(Path, slot.model_folders), slot.model_paths, checkout.path)
        file = slot.folder / EXTRA_MODELS
        if content and options.EXTRA_MODELS not in checkout.options:
            what = f"the ComfyUI in {checkout.path} knows no {options.EXTRA_MODELS}, which models needs"
            raise EmpError(what, hint="update the checkout, or put the models into it")
        if content:
            file.write_text(content, encoding="utf-8")
        else:
            file.unlink(missing_ok=True)
    except OSError as e:
        raise EmpError(
            f"cannot write {e.filename or slot.folder}: {e.strerror}",
            hint="check the free space, and who owns the folder",
        ) from e


def command(slot: Slot, checkout: Checkout) -> list[str]:
    """The command line: what isolates the slot, as far as this version knows it, then the user's own words."""
    wanted = {
        options.LISTEN: slot.host,
        options.PORT: str(slot.port),
        options.OUTPUT: str(slot.output),
        options.TEMP: str(slot.folder),  # ComfyUI takes temp/ below it
        options.INPUT: str(slot.input),
        options.USER: str(slot.user),
        options.DATABASE: slot.database_url,
    }
    if (slot.folder / EXTRA_MODELS).is_file():
        wanted[options.EXTRA_MODELS] = str(slot.folder / EXTRA_MODELS)
    if slot.upload_mib is not None:
        wanted[options.UPLOAD] = str(slot.upload_mib + UPLOAD_MARGIN_MIB)
    words = [word for option, value in wanted.items() if option in checkout.options for word in (option, value)]
    return [str(checkout.python), str(checkout.path / MAIN), *words, *slot.args]


def environment(checkout: Checkout, inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` with the checkout's virtual environment in the place of emp's, so that pip and uv install into it."""
    kept = {name: value for name, value in inherited.items() if name != "VIRTUAL_ENV"}
    path = foreign_path(inherited.get("PATH", os.defpath))
    venv = checkout.python.parent.parent
    if not (venv / "pyvenv.cfg").is_file():
        return {**kept, "PATH": path}
    return {**kept, "PATH": f"{checkout.python.parent}{os.pathsep}{path}", "VIRTUAL_ENV": str(venv)}
