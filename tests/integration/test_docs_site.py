"""The documentation's site, as `make docs` builds it: all pages, all links and anchors, nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from docs_site.build import GENERATED, build
from docs_site.links import faults
from docs_site.pages import page_of_each_file


def test_the_site_is_whole(tmp_path: Path) -> None:
    if importlib.util.find_spec("zensical") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no zensical: make check installs it")
    done = build(tmp_path / "docs")
    assert done.status == 0, done.output
    assert faults(done.site) == []
    wanted = {*page_of_each_file().values(), *GENERATED, "adr/index.md"}
    assert [page for page in sorted(wanted) if not (done.site / page).with_suffix(".html").is_file()] == []
    assert "drain_timeout" in (done.site / "search.js").read_text(), "the reference cannot be searched"
