"""The pages of the documentation's site that are generated or rewritten: nothing of the source is missing in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs_site import links, pages
from docs_site.reference import api, commands, manifest, markdown
from emp_orch.api.routes import ROUTES
from emp_orch.cli.main import COMMANDS


def keys_below(schema: Any, found: set[str]) -> set[str]:
    """The names of all keys that the schema's text has, wherever they stand."""
    if isinstance(schema, dict):
        found |= set(schema.get("properties", {}))
        for part in schema.values():
            keys_below(part, found)
    elif isinstance(schema, list):
        for part in schema:
            keys_below(part, found)
    return found


# --- guides

OURS = "audit|bench|containers|docs|docs_site|emp_orch|schema|templates|tests"


@pytest.mark.parametrize("guide", sorted(pages.DOCS.glob("*.md")), ids=lambda path: path.name)
def test_every_file_that_a_guide_names_is_there(guide: Path) -> None:
    named = re.findall(rf"(?<![\w/.:-])(?:{OURS})/[\w./*-]*\w", guide.read_text())
    assert [name for name in named if not (any(pages.ROOT.glob(name)) or any(pages.ROOT.glob(f"{name}.py")))] == []


# --- emp.yaml


def test_every_key_of_the_schema_is_described() -> None:
    found = [key for section in manifest.sections(manifest.load()) for key in section.keys]
    assert {key.name for key in found} == keys_below(json.loads(manifest.SCHEMA.read_text()), set())
    assert len({key.path for key in found}) == len(found), "one is described twice"


def test_a_key_says_type_unit_default_and_example() -> None:
    entry = manifest.page().partition("### `machines.NAME.worker.drain_timeout`")[2].partition("###")[0]
    assert "**Type**: a duration" in entry
    assert "**Unit**: time: ms, s, m or h" in entry
    assert "**Default**: `30s`" in entry
    assert "```yaml\ndrain_timeout: 30s\n```" in entry


def test_every_key_has_an_example() -> None:
    entries = manifest.page().split("\n### ")[1:]
    assert [entry.splitlines()[0] for entry in entries if "```yaml" not in entry] == []


def test_every_quantity_has_a_unit() -> None:
    found = [key for section in manifest.sections(manifest.load()) for key in section.keys]
    lacking = [
        key.path
        for key in found
        if key.schema.get("type") in ("integer", "number", ["integer", "null"]) and not manifest.unit_of(key)
    ]
    assert lacking == []


def test_a_key_that_holds_a_mapping_names_the_section_of_its_keys() -> None:
    text = manifest.page()
    assert "- **Keys**: [`machines.NAME.worker`](#machinesnameworker)" in text
    assert "\n## machines.NAME.worker\n" in text


# --- commands


def test_every_command_and_subcommand_is_described() -> None:
    typed = [found.typed for found in commands.commands()]
    assert {name.split()[1] for name in typed if len(name.split()) == 2} == set(COMMANDS)
    assert "emp jobs explain" in typed
    text = commands.page()
    assert [name for name in typed if f"# {name}\n" not in text] == []


def test_a_command_says_its_usage_and_options() -> None:
    entry = commands.page().partition("## emp apply\n")[2].partition("\n## ")[0]
    assert "emp apply [OPTIONS] [FILE]" in entry
    assert "| `--prune` | Remove machines that emp.yaml no longer names. |" in entry


# --- API


def test_every_operation_is_described() -> None:
    text = api.page()
    assert [r for r in ROUTES if f"### `{r.method} {r.path}` {{" not in text] == []


def test_an_operation_says_who_may_and_what_it_takes_and_answers() -> None:
    entry = api.page().partition("### `POST /api/jobs` {")[2].partition("\n### ")[0]
    assert "with role `submit` or `operate`" in entry
    assert "[JobBody](#jobbody)" in entry
    assert "| `Idempotency-Key` | header |" in entry


# --- text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a [b] <c> d_e", r"a \[b\] \<c\> d\_e"),
        ("`${A} <b>` and *c*", r"`${A} <b>` and \*c\*"),
        ("two\n  lines", "two lines"),
    ],
)
def test_prose_has_no_markup_but_code(text: str, said: str) -> None:
    assert markdown.prose(text) == said


def test_a_bar_in_a_table_ends_no_cell() -> None:
    assert markdown.table(("a",), [("x|y",)]) == ["| a |", "|---|", "| x\\|y |", ""]


# --- links

PAGES = {"docs/jobs.md": "jobs.md", "docs/adr/0001-a.md": "adr/0001-a.md", "README.md": "index.md"}


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[j](jobs.md#lanes)", "[j](jobs.md#lanes)"),
        ("[r](../README.md)", "[r](index.md)"),
        ("[why](adr/0001-a.md)", "[why](adr/0001-a.md)"),
        ("[lock](../requirements.lock)", "lock (`requirements.lock`)"),
        ("[gone](gone.md)", "[gone](gone.md)"),  # the builder refuses it
        ("[out](https://example.org/a)", "[out](https://example.org/a)"),
        ("`[j](../README.md)`", "`[j](../README.md)`"),
        ("```\n[r](../README.md)\n```", "```\n[r](../README.md)\n```"),
    ],
)
def test_links_are_fit_for_the_site(link: str, said: str) -> None:
    assert pages.relinked(link, file="docs/jobs.md", pages=PAGES) == said + "\n"


def test_a_link_from_another_folder_is_relative_to_its_page() -> None:
    assert pages.relinked("[j](../jobs.md)", file="docs/adr/0001-a.md", pages=PAGES) == "[j](../jobs.md)\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Such:\n- a\n- b", "Such:\n\n- a\n- b"),
        ("- a\n  more\n- b", "- a\n  more\n- b"),
        ("**T**\n| a |\n|---|", "**T**\n\n| a |\n|---|"),
        ("```\nx\n- a\n```", "```\nx\n- a\n```"),
    ],
)
def test_a_list_under_a_line_of_text_is_a_list(text: str, said: str) -> None:
    assert pages.relinked(text, file="docs/jobs.md", pages=PAGES) == said + "\n"


def site(folder: Path, **html: str) -> Path:
    for name, text in html.items():
        (folder / f"{name}.html").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<a href="b.html#there">b</a>', []),
        ('<a href="https://example.org">out</a>', []),
        ('<a href="c.html">c</a>', ["a.html: c.html is not in the site"]),
        ('<a href="../c.html">c</a>', ["a.html: ../c.html is not in the site"]),
        ('<a href="b.html#gone">b</a>', ["a.html: b.html#gone has no such anchor"]),
        ('<a href="#gone">here</a>', ["a.html: #gone has no such anchor"]),
        ('<img src="x.png">', ["a.html: x.png is not in the site"]),
        ('<script src="https://e.org/x.js"></script>', ["a.html: loads https://e.org/x.js, which needs a network"]),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, html: str, said: list[str]) -> None:
    assert links.faults(site(tmp_path, a=html, b='<h2 id="there">b</h2>')) == said


def test_a_folder_without_pages_is_no_site(tmp_path: Path) -> None:
    assert links.faults(tmp_path) == [f"{tmp_path}: no page"]
