"""Quoting, so that no value can leave its word, let alone its line: one function for each parser that emp writes for.

Whoever writes text that another program takes apart uses these and no other way; tests/property/test_foreign_parsers
has each real parser read back what they write. What is handed over as a list of words needs none.

supervisord reads a `command=` line three times: ConfigParser cuts it at a newline and at a `;` or `#` after white
space; then `%(name)s` is expanded; then shlex splits it (supervisor/options.py). Control characters, backslashes and
everything outside ASCII are written as escapes, which emp's launcher undoes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence


def escape(text: str) -> str:
    """`text` in printable ASCII; `unescape` is its inverse."""
    return text.encode("unicode_escape").decode("ascii")


def unescape(text: str) -> str:
    if "\\" not in text and text.isascii():
        return text  # most; the codec is looked for at its first use, and that is before a program starts
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


def redis_line(name: str, *values: str) -> str:
    """One line of a redis.conf. A server splits it at blanks, and knows `\\xHH` between double quotes (sds.c)."""
    return " ".join([name, *(_in_bytes(value, "\\x{:02x}") for value in values)])


def lua_text(text: str) -> str:
    """`text` as a string of Lua 5.1, in printable ASCII."""
    return _in_bytes(text, "\\{:03d}")


def _in_bytes(text: str, escaped: str) -> str:
    """`text` in double quotes, as the bytes of its UTF-8, or as the bytes that it was decoded from."""
    raw = text.encode(errors="surrogateescape")
    return f'"{"".join(chr(b) if chr(b) in _PLAIN else escaped.format(b) for b in raw)}"'


def shell_line(*words: str, variables: Mapping[str, str] | None = None) -> str:
    """A line for a POSIX shell that runs `words` with `variables`, whose names are letters, digits and _."""
    assigned = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*assigned, shlex.join(words)])


def in_double_quotes(text: str) -> str:
    """`text` as it stands within the double quotes of a `command=` line, by way of a `%(ENV_NAME)s`: shlex reads it."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def yaml_text(text: str) -> str:
    """`text` as a double-quoted scalar of an emp.yaml, in which emp replaces no variable; letters stay readable."""
    plain = text.replace("${", "$${")
    return f'"{"".join(c if c in _PLAIN or c.isalpha() else _escaped(c) for c in plain)}"'


def docker_csv(text: str) -> str:
    """`text` as one value of an option that the docker command splits at commas (RFC 4180)."""
    return '"{}"'.format(text.replace('"', '""'))


# What systemd refuses in the path of an executable, and takes in the words after it (string_is_safe of string-util.c).
_UNSAFE_IN_EXECUTABLE = frozenset("\"'\\\x7f") | frozenset(map(chr, range(0x20)))


def systemd_word(text: str) -> str:
    """`text` as one word of a unit's list: `%x` is a specifier there, and `\\xHH` an escape (systemd.syntax(7))."""
    return f'"{"".join(_systemd_char(c) for c in text)}"'


def systemd_comment(text: str) -> str:
    """`text` on a line of its own in a comment."""
    return "".join(c if c.isprintable() else "?" for c in text).rstrip("\\ ")


def systemd_command(words: Sequence[str]) -> str:
    """`words` for `ExecStart=`. The `:` within the first one's quotes keeps systemd from replacing `$NAME`."""
    if _UNSAFE_IN_EXECUTABLE & set(words[0]):
        words = ("/bin/sh", "-c", 'exec "$@"', "emp", *words)
    return " ".join((systemd_word(f":{words[0]}"), *map(systemd_word, words[1:])))


def _systemd_char(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char == "%":
        return "%%"
    return f"\\x{ord(char):02x}" if char < " " or char == "\x7f" else char
