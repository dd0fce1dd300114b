"""Quoting, so that no value can leave its word, let alone its line.

supervisord reads a `command=` line three times: ConfigParser cuts it at a newline and at a `;` or `#` after white
space; then `%(name)s` is expanded; then shlex splits it (supervisor/options.py). Control characters, backslashes and
everything outside ASCII are written as escapes, which emp's launcher undoes.
"""

from __future__ import annotations

import shlex


def escape(text: str) -> str:
    """`text` in printable ASCII; `unescape` is its inverse."""
    return text.encode("unicode_escape").decode("ascii")


def unescape(text: str) -> str:
    return text.encode("ascii").decode("unicode_escape")


def word(text: str) -> str:
    """`text` as one word of a `command=` line."""
    quoted = shlex.quote(escape(text))
    # An empty pair of quotes before `;` and `#` keeps white space from standing right before them.
    return quoted.replace(";", "'';").replace("#", "''#").replace("%", "%%")


_PLAIN = frozenset(map(chr, range(0x20, 0x7F))) - {'"', "\\"}


def compose_text(text: str) -> str:
    """`text` as a double-quoted scalar of a compose.yaml, in printable ASCII.

    Compose replaces `$NAME` in every value after YAML was read, and `$$` by `$`. Source: YAML 1.2, 5.7; Compose
    specification, "Interpolation".
    """
    return f'"{"".join(c if c in _PLAIN else _escaped(c) for c in text.replace("$", "$$"))}"'


def _escaped(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return "\\" + char
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
