"""Other people's words for terminals and logs: shown, never obeyed.

A job, a service or a stranger chose them; an escape sequence in them could rewrite a screen, a newline fake a log line.
"""

from __future__ import annotations

import re


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """`text` on one line: what cannot be shown as it is (controls, separators of lines, surrogates) is spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def many_lines(text: str) -> str:
    """As `one_line`, but newlines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


# JSON itself spells out only what is below blank; a terminal obeys more: C1 controls, what parts lines or turns them.
_OBEYED = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# CSI, OSC and single-character sequences.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS = re.compile(f"[\x00-\x08\x0b-\x1f\ud800-\udfff]|{_OBEYED.pattern}")


def without_controls(text: str) -> str:
    """`text` without all that a terminal would obey but for newlines and tabs: colours and the like are gone."""
    return _CONTROLS.sub("", _SEQUENCES.sub("", text))


def shown_json(text: str) -> str:
    """The same JSON, with all that a terminal would obey spelled out."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
