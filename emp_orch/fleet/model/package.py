"""The worker package: which version of emp's own modules the workers of a fleet run."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

SHORT = 12


class Build(Struct, frozen=True, kw_only=True, gc=False):
    """Which emp somebody runs: the digest of all its modules, and that of what a supervisord loads of them; empty
    where that is not known. `emp` is the digest of the worker package that this emp would make.
    """

    emp: str = ""
    supervision: str = ""


class WorkerPackage(Struct, frozen=True, kw_only=True):
    """`digest`: the sha256 of the archive, in hexadecimal. `url`: where the archive is; empty: at the fleet's API."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    url: str = ""

    @property
    def short(self) -> str:
        return in_short(self.digest)


def in_short(package: str) -> str:
    """What a worker says it runs, for people: the beginning of a digest, or its words."""
    return package[:SHORT] if len(package) == 64 else package or "an unknown package"
