"""Words that a job or a service chose, on terminals and in logs."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.cli import main as main_module
from emp_orch.cli.output.text import table
from emp_orch.errors import EmpError
from emp_orch.loglines import log_handler
from emp_orch.plaintext import many_lines, one_line, shown_json

HOSTILE = "a\x1b[2Jb\x9b31mc\r\n2026-01-01 ERROR faked\u2028\u202e\x07\ud800"


@given(st.text(st.characters(codec=None)))
def test_whatever_is_said_is_shown_on_one_line(text: str) -> None:
    shown = one_line(text)
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    assert one_line(shown) == shown and (shown == text or not text.isprintable())
    assert all(c.isprintable() or c in "\n\t" for c in many_lines(text))
    shown.encode()


@given(st.text(st.characters(codec="utf-8")))
def test_json_stays_the_same_json(text: str) -> None:
    shown = shown_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(shown) == text
    assert not any(0x7F <= ord(c) <= 0x9F for c in shown)


def test_a_table_is_as_long_as_its_rows() -> None:
    assert len(table(("A", "B"), [(HOSTILE, HOSTILE)]).splitlines()) == 2


def test_a_log_has_one_line_for_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    log = logging.Logger("t")
    log.addHandler(log_handler())
    log.warning("job %s is %s", "j", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("it broke")
    first, second, *trace = out.getvalue().split("\n")
    assert "job j is a\\x1b[2Jb\\x9b31mc\\r\\n2026-01-01 ERROR faked\\u2028\\u202e\\x07\\ud800" in first
    assert second.endswith("it broke")
    assert all(line.startswith("  ") for line in trace if line)
    assert all(c.isprintable() or c == "\n" for c in out.getvalue())


def test_an_error_reaches_the_terminal_as_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise EmpError(f"no\n{HOSTILE}", hint=HOSTILE)

    monkeypatch.setattr(main_module.cli, "main", broken)
    with pytest.raises(SystemExit):
        main_module.main()
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().err)
