"""The `.env` beside an emp.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.manifest import ConfigError, environment


def read(folder: Path, text: str) -> dict[str, str]:
    (folder / ".env").write_text(text, encoding="utf-8")
    return environment(folder / "emp.yaml", {})


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A=", ""),
        ("A = b ", "b"),
        ("  export A=b", "b"),
        ("A=b c", "b c"),
        ("A=b # c", "b"),
        ("A=b#c", "b#c"),
        ("A=#c", "#c"),
        ("A= # c", ""),
        ("A=b=c", "b=c"),
        ("A='b # c'", "b # c"),
        ("A='b' # c", "b"),
        ("A='b\\n$X'", "b\\n$X"),
        ('A="b\\n\\t\\"\\\\c"', 'b\n\t"\\c'),
        ('A=" b "', " b "),
        ("A=${X}", "${X}"),
        ("A=it's", "it's"),
        ("A=1\nA=2", "2"),
        ("A=b\r\n", "b"),
        ("\ufeffA=b", "b"),
    ],
)
def test_values(tmp_path: Path, line: str, value: str) -> None:
    assert read(tmp_path, f"{line}\n# comment\n\n") == {"A": value}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("A=1\nhunter2\n", ".env:2:1: expected NAME=VALUE\n    a line that is a comment begins with #"),
        ("  1A=hunter2\n", ".env:1:3: expected NAME=VALUE\n    a line that is a comment begins with #"),
        ("A='hunter2\n", ".env:1:3: A: a quote is not closed, or text follows it\n    a value is one line"),
        ('A="hunter2" 3\n', ".env:1:3: A: a quote is not closed, or text follows it\n    a value is one line"),
        ('A="hunter2\\"\n', ".env:1:3: A: a quote is not closed, or text follows it\n    a value is one line"),
        ("A=hunter2\0\n", ".env:1:3: A: a NUL character cannot be part of a value"),
    ],
)
def test_lines_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == told


def test_no_dotenv_is_fine(tmp_path: Path) -> None:
    assert environment(tmp_path / "emp.yaml", {"A": "b"}) == {"A": "b"}


def test_a_hopeless_dotenv_is_not_listed_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "x\n" * 5000)
    assert len(caught.value.problems) == 200


def test_a_dotenv_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read(tmp_path, "#" * (1024 * 1024 + 1))
