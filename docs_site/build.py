"""Gathers the sources, writes the configuration beside them, and runs the builder (zensical) on both."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from docs_site import pages
from docs_site.reference import api, commands, manifest

HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"
GENERATED = {
    "reference/emp-yaml.md": manifest.page,
    "reference/commands.md": commands.page,
    "reference/api.md": api.page,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """`site`: the folder of HTML. `status` and `output`: the builder's, 0 where it found nothing wrong."""

    site: Path
    status: int
    output: str


def build(folder: Path) -> Built:
    """Everything below `folder`, which is emptied first: `source`, `mkdocs.yml`, `site`. Raises OSError."""
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    gather(source)
    config = folder / "mkdocs.yml"
    config.write_text(_config(source), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(config.absolute())],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Built(site=folder / "site", status=done.returncode, output=done.stdout + done.stderr)


def gather(source: Path) -> None:
    """All sources of the site: what people wrote, what is generated, and the files that pages load."""
    pages.gather(source)
    for name, page in GENERATED.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(page(), encoding="utf-8")
    shutil.copytree(STATIC, source / "static", ignore=shutil.ignore_patterns("*.json"))


def _config(source: Path) -> str:
    """site.yml, with each page of docs/ that its navigation does not name under "Inside"."""
    text = (HERE / "site.yml").read_text(encoding="utf-8")
    settings, _, order = text.partition("\nnav:\n")
    nav: list[dict[str, Any]] = yaml.safe_load(order)
    named = {page for entry in nav for group in entry.values() for page in _leaves(group)}
    inside = next(entry["Inside"] for entry in nav if "Inside" in entry)
    inside += [path.name for path in sorted(source.glob("*.md")) if path.name not in named]
    # The settings stay text: they hold a tag that safe_load does not know.
    return settings + "\n" + yaml.safe_dump({"nav": nav}, allow_unicode=True, sort_keys=False)


def _leaves(group: str | list[Any] | dict[str, Any]) -> list[str]:
    match group:
        case str():
            return [group]
        case list():
            return [page for one in group for page in _leaves(one)]
        case dict():
            return [page for one in group.values() for page in _leaves(one)]
