"""What decoding a document of Redis raises that does not fit, whoever wrote it."""

from __future__ import annotations

import msgspec

# Deep nesting is no DecodeError: left out, one such document would end its reader.
DAMAGED = (msgspec.DecodeError, RecursionError)
