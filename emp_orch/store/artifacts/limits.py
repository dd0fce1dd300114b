"""Sizes that the store of files shares."""

from __future__ import annotations

# Small chunks are gathered to this before a thread is asked to write them.
WRITE_BYTES = 256 * 1024
