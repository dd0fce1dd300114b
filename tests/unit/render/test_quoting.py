"""One word of supervisord's `command=` line: what is written, and that it comes back."""

from __future__ import annotations

import shlex

import pytest

from emp_orch.machine.launch import Launch, LaunchError
from emp_orch.render.quoting import escape, unescape, word

WRITTEN = [
    ("plain", "plain"),
    ("", "''"),
    (" ", "' '"),
    ("two words", "'two words'"),
    ("it's", "'it'\"'\"'s'"),
    ('"', "'\"'"),
    ("100%", "100%%"),
    ("%(here)s", "'%%(here)s'"),
    (";", "''';'"),
    ("a ; b", "'a ''; b'"),
    ("# c", "'''# c'"),
    ("a\nb", "'a\\nb'"),
    ("a\\nb", "'a\\\\nb'"),
    ("\r\t\x00\x1b\x7f", "'\\r\\t\\x00\\x1b\\x7f'"),
    ("ü", "'\\xfc'"),
    ("🙂", "'\\U0001f642'"),
    ("\u2028\x85", "'\\u2028\\x85'"),
    ("$HOME `id`", "'$HOME `id`'"),
]


@pytest.mark.parametrize(("text", "written"), WRITTEN)
def test_a_word_is_written_so(text: str, written: str) -> None:
    assert word(text) == written


@pytest.mark.parametrize("text", [text for text, _ in WRITTEN])
def test_a_word_comes_back(text: str) -> None:
    """As supervisord and the launcher read it: `%` expanded, split by shlex, escapes undone."""
    (back,) = shlex.split(word(text) % {})
    assert unescape(back) == text
    assert unescape(escape(text)) == text


@pytest.mark.parametrize("text", [text for text, _ in WRITTEN])
def test_a_word_is_one_line_of_printable_ascii_without_a_comment(text: str) -> None:
    written = word(text)
    assert written.isascii()
    assert written.isprintable()
    assert not any(before.isspace() and c in ";#" for before, c in zip(" " + written, written, strict=False))


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ([], "no command was given after --"),
        (["name"], "no command was given after --"),
        (["name", "--cwd", "/x"], "no command was given after --"),
        (["name", "--"], "no command was given after --"),
        (["name", "--shell", "x", "--", "y"], "unknown option --shell"),
    ],
)
def test_the_launcher_refuses_a_line_that_emp_did_not_write(args: list[str], why: str) -> None:
    with pytest.raises(LaunchError, match=why):
        Launch(args)


def test_the_launcher_takes_values_that_look_like_options() -> None:
    launch = Launch(["p", "--cwd", "--", "--creates", "--env", "--env", "A=--", "--env", "B==", "--", "--", "--cwd"])
    assert (launch.cwd, launch.creates, launch.env, launch.argv) == (
        "--",
        "--env",
        {"A": "--", "B": "="},
        ["--", "--cwd"],
    )
