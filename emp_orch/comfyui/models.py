"""The file of ComfyUI's extra_model_paths: from folders of models, and from what a user would write into it himself.

Source: extra_model_paths.yaml.example and utils/extra_config.py of ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

# One section of the file: base_path, is_default, and folders by the kind of model, several one a line.
Section = Mapping[str, str | bool]

_MAX_KINDS = 512
# A kind by name, and code by nature: only who writes the section himself gets it loaded.
_NO_MODELS = frozenset({"custom_nodes"})


def text(folders: Iterable[Path], sections: Mapping[str, Section], checkout: Path) -> str:
    """The content of the file; empty when there is nothing to say.

    Each of `folders` is laid out as ComfyUI's own models/: a subfolder for each kind of model. Those that it has count,
    and those that the checkout has: what is put there later is then found without a restart.
    """
    known = _kinds(checkout / "models")
    found: dict[str, dict[str, str | bool]] = {}
    for number, folder in enumerate(folders):
        kinds = sorted(known | _kinds(folder))[:_MAX_KINDS]
        found[f"emp-{number}"] = {"base_path": str(folder), **{kind: kind for kind in kinds}}
    found |= {name: dict(section) for name, section in sections.items()}
    return yaml.safe_dump(found, allow_unicode=True, sort_keys=False) if found else ""


def _kinds(folder: Path) -> frozenset[str]:
    """The names of its subfolders; none when it cannot be read, as ComfyUI then finds nothing there either."""
    try:
        below = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return frozenset()
    return frozenset(name for name in below if not name.startswith(".") and name.isprintable()) - _NO_MODELS
