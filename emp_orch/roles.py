"""What the holder of a token of the API may do."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """`read` looks at everything, `submit` hands in jobs and fetches what they made, `operate` may do all."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
