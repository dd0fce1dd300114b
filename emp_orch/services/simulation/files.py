"""ComfyUI's rules for the names of files: the counter of a prefix, annotated names, uploads that do not overwrite."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from emp_orch.services.simulation.config import Folders

_MODELS = frozenset({".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"})


class Outside(ValueError):
    """A name that leads out of its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavePath:
    """Where a save begins: `folder`/`name`_`counter`_.png, then one higher each."""

    folder: Path
    subfolder: str
    name: str
    counter: int

    def file(self, number: int) -> str:
        """The name of the `number`th picture of this save, from 0."""
        return f"{self.name.replace('%batch_num%', str(number))}_{self.counter + number:05}_.png"


def inside(folder: Path, name: str) -> Path | None:
    """`folder`/`name` made absolute, or None when that lies outside `folder`. Links are followed, as ComfyUI does."""
    if "\x00" in name:
        return None
    root = Path(os.path.normpath(folder.absolute()))
    path = Path(os.path.normpath(root / name))
    return path if path.is_relative_to(root) else None


def save_path(prefix: str, root: Path, *, width: int, height: int) -> SavePath:
    """As ComfyUI chooses it: one more than the highest number there is now. Two that save at once choose the same.

    Raises Outside.
    """
    filled = Path(os.path.normpath(_filled(prefix, width, height)))
    subfolder, name = "" if filled.parent == Path() else str(filled.parent), filled.name
    folder = inside(root, subfolder)
    if folder is None:
        raise Outside(f"Saving image outside the output folder is not allowed: {prefix}")
    folder.mkdir(parents=True, exist_ok=True)
    return SavePath(folder=folder, subfolder=subfolder, name=name, counter=_highest(folder, name) + 1)


def _highest(folder: Path, name: str) -> int:
    """The highest number among `name`_NUMBER_…; 0 when there is none."""
    start = f"{name}_"
    taken = [path.name[len(start) :] for path in folder.iterdir() if path.name.startswith(start)]
    numbers = [rest.split(".")[0].split("_")[0] for rest in taken]
    return max((int(n) for n in numbers if n.isascii() and n.isdigit()), default=0)


def _filled(prefix: str, width: int, height: int) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {"width": width, "height": height, "year": now.tm_year}
    twos = {"month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}
    for key, value in values.items():
        prefix = prefix.replace(f"%{key}%", str(value))
    for key, value in twos.items():
        prefix = prefix.replace(f"%{key}%", f"{value:02}")
    return prefix


def annotated(name: str, folders: Folders) -> tuple[str, Path | None]:
    """`picture.png [temp]` → the name and that folder; a plain name → None for the folder."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 2].rstrip(), folders.of(kind)
    return name, None


def input_file(name: str, folders: Folders) -> Path | None:
    """The file that a loading node names, below the input folder unless its name is annotated."""
    plain, folder = annotated(name, folders)
    path = inside(folder or folders.input, plain)
    return path if path is not None and path.is_file() else None


def keep_upload(folder: Path, name: str, content: bytes, *, overwrite: bool) -> str:
    """Store an upload; its name there. One that is taken by other content becomes `name (1)` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = Path(name).stem, Path(name).suffix
    digest, number = hashlib.sha256(content).digest(), 1
    while not overwrite and (path := folder / name).exists():
        if hashlib.sha256(path.read_bytes()).digest() == digest:
            return name
        name = f"{stem} ({number}){suffix}"
        number += 1
    (folder / name).write_bytes(content)
    return name


def images_in(folder: Path) -> list[str]:
    """The names that a loading node offers: files with a picture's ending, none of subfolders."""
    if not folder.is_dir():
        return []
    endings = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(endings))


def models_in(kind: str, folders: Folders) -> list[str]:
    """The models of one kind by name, those of subfolders with their path."""
    found: set[str] = set()
    for root in (folders.models or {}).get(kind, ()):
        for at, _, names in os.walk(root, followlinks=True):
            found |= {(Path(at) / name).relative_to(root).as_posix() for name in names if _is_model(kind, name)}
    return sorted(found)


def _is_model(kind: str, name: str) -> bool:
    if kind == "configs":
        return name.endswith(".yaml")
    return kind != "custom_nodes" and Path(name).suffix.lower() in _MODELS
