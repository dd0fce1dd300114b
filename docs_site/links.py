"""Checks a built site: every link, picture and script of every page is in it, and every anchor too."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a page loads by itself, so that the site would not be whole without a network.
_LOADS = {"img": "src", "script": "src", "source": "src", "iframe": "src"}


@dataclass(slots=True)
class _Page(HTMLParser):
    """What one page names: anchors of its own, links, and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.anchors |= {said[name] for name in ("id", "name") if said.get(name)}
        if tag == "a" and "href" in said:
            self.links.append(said["href"])
        elif tag == "link" and {"stylesheet", "icon", "preload"} & set(said.get("rel", "").split()):
            self.loads.append(said.get("href", ""))
        elif (name := _LOADS.get(tag)) is not None and name in said:
            self.loads.append(said[name])


def faults(site: Path) -> list[str]:
    """One line for each link or file that is not in `site`, and for each that a page loads from elsewhere."""
    site = site.resolve()
    pages = {path: _read(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    found = [] if pages else [f"{site}: no page"]
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: loads {url}, which needs a network" for url in page.loads if urlsplit(url).netloc]
        for url in dict.fromkeys([*page.links, *page.loads]):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file() or not target.is_relative_to(site):
                found.append(f"{name}: {url} is not in the site")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name}: {url} has no such anchor")
    return found


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page
