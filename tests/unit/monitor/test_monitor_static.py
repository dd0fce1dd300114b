"""The page's files: complete, free of inline script and foreign hosts, and the vendored ones as published."""

from __future__ import annotations

import hashlib
import json
import re

from emp_orch.monitor.static_files import ROOT, load
from support.tree import TESTS

OWN = [p for p in ROOT.rglob("*") if p.suffix in (".js", ".html", ".css") and "vendor" not in p.parts]


def test_vendored_files_are_as_published() -> None:
    named = json.loads((ROOT / "vendor" / "vendored.json").read_text())
    assert set(named) == {p.name for p in (ROOT / "vendor").iterdir() if p.suffix in (".js", ".css")}
    for name, about in named.items():
        assert hashlib.sha256((ROOT / "vendor" / name).read_bytes()).hexdigest() == about["sha256"]
        assert (ROOT / "vendor" / f"{about['package']}.LICENSE").is_file()


def test_what_only_tests_use_is_as_published_too() -> None:
    vendor = TESTS / "browser" / "vendor"
    for name, about in json.loads((vendor / "vendored.json").read_text()).items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == about["sha256"]
        assert (vendor / f"{about['package']}.LICENSE").is_file()


def test_every_import_and_link_is_served() -> None:
    files = load()
    for path in OWN:
        text = path.read_text()
        for target in re.findall(r"""from "([^"]+)";|import "([^"]+)";""", text):
            name = target[0] or target[1]
            found = (path.parent / name).resolve().relative_to(ROOT)
            assert f"/{found.as_posix()}" in files, f"{path.name} imports {name}"
        if path.suffix == ".html":
            for link in re.findall(r'(?:src|href)="([^"]+)"', text):
                assert link in files


def test_nothing_inline_and_nothing_from_elsewhere() -> None:
    for path in OWN:
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org)", text), path
        assert "innerHTML" not in text, path
        assert "dangerouslySetInnerHTML" not in text, path
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text), path


def test_only_the_pages_own_files_are_served() -> None:
    assert set(load()) >= {"/", "/index.html", "/style.css", "/favicon.svg", "/js/main.js"}
    assert not [name for name in load() if name.endswith((".json", ".LICENSE", ".py")) or ".." in name]


def test_the_page_names_every_module_that_it_imports() -> None:
    """So that a browser fetches them side by side, and none that it does not use."""
    wanted, seen = [ROOT / "js" / "main.js"], set[str]()
    while wanted:
        path = wanted.pop()
        if (name := f"/{path.relative_to(ROOT).as_posix()}") not in seen:
            seen.add(name)
            imported = re.findall(r"""(?:from|import) "(\.[^"]+)";""", path.read_text())
            wanted += [(path.parent / target).resolve() for target in imported]
    named = re.findall(r'<link rel="modulepreload" href="([^"]+)">', load()["/"].body.decode())
    assert sorted(named) == sorted(seen)
