"""Shell syntax in commands: each piece is named with the way out, and what is plain text is left alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from emp_orch.manifest.checks.shell import findings
from support.stack.command import emp


@pytest.mark.parametrize(
    ("line", "tokens", "way"),
    [
        ("cd /app && python main.py", ["cd", "&&"], "cwd: FOLDER"),
        ("a || b", ["||"], '["sh", "-c", "…"]'),
        ("a | tee log", ["|"], '["sh", "-c", "…"]'),
        ("a > out.log", [">"], "emp logs"),
        ("a >>out.log 2>&1", [">>", ">"], "emp logs"),
        ("a <in.txt", ["<"], '["sh", "-c", "…"]'),
        ("a; b", [";"], '["sh", "-c", "…"]'),
        ("~/bin/serve --at ~", ["~"], "${HOME}"),
        ("PORT=8188 TOKEN=s3cret serve", ["PORT=", "TOKEN="], "env: {PORT: value}"),
        ("source venv/bin/activate", ["source"], "bin/python"),
        (". venv/bin/activate", ["."], "bin/python"),
        ("export A=1", ["export"], "env: {NAME: value}"),
        ("serve --threads `nproc`", ["`…`"], '["sh", "-c", "…"]'),
        ("serve --threads $(nproc --all)", ["$(…)"], '["sh", "-c", "…"]'),
        ("serve --home $HOME", ["$HOME"], "${HOME}"),
        ("serve &", ["&"], "leave it out"),
    ],
)
def test_each_piece_is_named_with_the_way_out(line: str, tokens: list[str], way: str) -> None:
    found = list(findings(tuple(shlex.split(line))))
    assert [token for token, _ in found] == tokens
    assert any(way in w for _, w in found)
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    "words",
    [
        ("sh", "-c", "cd /a && b | c > d; `e` $(f) &"),
        ("/bin/bash", "-lc", "source x; exec y"),
        ("/usr/bin/env", "bash", "-c", "a && b"),
        ("env", "A=1", "sh", "-c", "a && b"),
        ("python", "-c", "import os; print(1 > 2 | 3)"),
        ("serve", "--prompt", "<lora:x>", "--price", "$5", "--like", "a&b", "--eq", "A=1", "--dir=~x"),
        ("serve", "--url", "http://h/?a=1&b=2", "--sql", "select 1;  select 2;"),
        (),
    ],
)
def test_plain_text_is_left_alone(words: tuple[str, ...]) -> None:
    assert list(findings(words)) == []


def test_validate_notes_it_for_services_and_set_up_steps(tmp_path: Path) -> None:
    (tmp_path / "emp.yaml").write_text(
        "version: 1\nname: f\nservices:\n"
        "  a: {scale: per_gpu, command: 'A=1 serve && other', install: {command: 'pip install x > log'}}\n"
        "  b: {scale: once, command: ['prepare', '~/x']}\n"
        "machines: {m: {services: [a, b]}}\n"
    )
    done = emp(tmp_path, "validate")
    assert done.returncode == 0
    said = done.stderr.splitlines()
    assert [line.partition(" is a shell's")[0] for line in said] == [
        "emp.yaml:4:3: note: services.a.command: A=",
        "emp.yaml:4:3: note: services.a.command: &&",
        "emp.yaml:4:3: note: services.a.install.command: >",
        "emp.yaml:5:3: note: services.b.command: ~",
    ]
