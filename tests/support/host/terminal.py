"""A real terminal's parser, which tells all that a text makes it do."""

from __future__ import annotations

from typing import Any

import pyte

# Clear, move, title, link, a C1 control, a tab stop, a question that a terminal answers as if somebody typed, reset,
# a line written over, a line faked, separators, a direction turned, rich's own markup.
HOSTILE = (
    "a\x1b[2J\x1b[1;1H\x1b]0;owned\x07\x1b]8;;http://x.example\x1b\\\x9b31m\x1bH\x1b[6n\x1bc\rover\x08\x0b\x0c\x07"
    "\nfaked\x85\u2028\u2029\u202eturned[bold]\x7f\x00"
)
SHOWS = frozenset({"draw", "linefeed", "carriage_return", "tab"})


def obeyed(text: str) -> tuple[frozenset[str], str]:
    """What a terminal does with `text`, by pyte's names, but for showing letters and going to the next line; and all
    letters that it shows.
    """
    called: set[str] = set()
    drawn: list[str] = []

    class Screen:
        def __getattr__(self, name: str) -> Any:
            def told(*args: Any, **_: Any) -> None:
                called.add(name)
                if name == "draw":
                    drawn.append(args[0])

            return told

    # As a terminal's line discipline passes it on. A bare \r is somebody's own.
    if "\r" in text:
        called.add("bare carriage_return")
    pyte.Stream(Screen(), strict=False).feed(text.replace("\n", "\r\n"))  # type: ignore[arg-type]
    return frozenset(called) - SHOWS, "".join(drawn)
