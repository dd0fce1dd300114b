"""Quoting for supervisord's `command=` line, so that no value can leave its word, let alone its line.

supervisord reads the line three times: ConfigParser cuts it at a newline and at a `;` or `#` after white space;
then `%(name)s` is expanded; then shlex splits it (supervisor/options.py). Control characters, backslashes and
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
