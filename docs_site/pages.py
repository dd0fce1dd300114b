"""The pages that people wrote: docs/, and the files beside it that belong to the site, with links that are fit for it.

On GitHub a page links to files of the checkout. In the site a link to a page stays a link, and any other file of the
checkout becomes its path, as text.
"""

from __future__ import annotations

import os.path
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# Files outside docs/ → their pages. README is not copied: what links to it means the first page.
BESIDE = {"ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md"}
FRONT = {"README.md": "index.md"}

_ITEM = re.compile(r"- |\d+\. ")
_ROW = re.compile(r"\|")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_LINK = re.compile(r"(?P<code>`[^`]*`)|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def gather(source: Path) -> None:
    """Copies every page and picture of the site into `source`, which must not be there yet."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, page in BESIDE.items():
        shutil.copyfile(ROOT / name, source / page)
    pages = page_of_each_file()
    for file, page in pages.items():
        if file in FRONT:
            continue
        there = source / page
        there.write_text(relinked(there.read_text(encoding="utf-8"), file=file, pages=pages), encoding="utf-8")
    (source / "adr" / "index.md").write_text(decisions(), encoding="utf-8")


def page_of_each_file() -> dict[str, str]:
    """Path in the checkout → path in the site."""
    own = {f"docs/{path.relative_to(DOCS).as_posix()}" for path in DOCS.rglob("*.md")}
    return {name: name.removeprefix("docs/") for name in sorted(own)} | BESIDE | FRONT


def relinked(text: str, *, file: str, pages: Mapping[str, str]) -> str:
    """`text` of `file` (a path in the checkout) with each link as the site needs it. Code is left alone."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        if not fence and _begins_block(line, lines[-1] if lines else ""):
            lines.append("")
        mark = _FENCE.match(line)
        if mark is not None and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
        lines.append(line if fence or mark is not None else _LINK.sub(lambda m: _link(m, file, pages), line))
    return "\n".join(lines) + "\n"


def _begins_block(line: str, before: str) -> bool:
    """Whether a list or table begins right under a line of text: GitHub sees it there, the builder does not."""
    return any(kind.match(line) and before.strip() and not kind.match(before) for kind in (_ITEM, _ROW)) and not (
        before.startswith((" ", "#", "```"))
    )


def _link(link: re.Match[str], file: str, pages: Mapping[str, str]) -> str:
    if link["code"] is not None or re.match(r"[a-z]+:|#|//", link["target"]):
        return link[0]
    path, _, anchor = link["target"].partition("#")
    there = os.path.normpath(PurePosixPath(file).parent / path)
    here = PurePosixPath(pages[file]).parent
    if there in pages:
        target = os.path.relpath(pages[there], here) + (f"#{anchor}" if anchor else "")
    elif there.startswith("docs/images/"):
        target = os.path.relpath(there.removeprefix("docs/"), here)
    elif (ROOT / there).exists():
        return f"{link['text']} (`{there}`)" if link["text"].strip("`") != there else f"`{there}`"
    else:
        return link[0]  # the builder refuses it
    return f"{link['image']}[{link['text']}]({target})"


def decisions() -> str:
    """The list of decisions, by their numbers, with the title that each gives itself."""
    rows = []
    for path in sorted((DOCS / "adr").glob("0*.md")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        rows.append(f"- [{first.removeprefix('# ')}]({path.name})")
    return (
        "# Decisions\n\nWhy emp is as it is. Each decision says what was wanted, what was decided, and why.\n\n"
        + "\n".join(rows)
        + "\n"
    )
