"""What services offer, kept once for all workers that offer the same: `offers:{digest}`, compressed JSON as text.

A document goes when no worker has named it for OFFERS_KEPT_S. Anybody who may report may write one, so a reader
believes only what has the digest it is found under, and only up to a size.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import cast

import msgspec

from emp_orch.errors import EmpError
from emp_orch.jobs.matching.offers import Offers, digest_of
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys

OFFERS_KEPT_S = 3_600
# Compressed; a hundred times what a large installation has.
MAX_STORED_BYTES = 2 * 1024**2
MAX_TEXT_BYTES = 32 * 1024**2
# Documents that a reader remembers. Fleets have a few images.
MAX_REMEMBERED = 32


class TooLarge(EmpError):
    """A service has more than is kept."""


def packed(text: bytes) -> str:
    """`text` as it is stored. Raises TooLarge."""
    stored = base64.b64encode(zlib.compress(text, 6))
    if len(text) > MAX_TEXT_BYTES or len(stored) > MAX_STORED_BYTES:
        raise TooLarge(f"the list of its models and node classes has {len(text)} bytes, which is more than is kept")
    return stored.decode()


def unpacked(stored: str, digest: str) -> Offers | None:
    """What was stored under `digest`; None when it is not that, or does not fit."""
    if len(stored) > MAX_STORED_BYTES:
        return None
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(base64.b64decode(stored, validate=True), MAX_TEXT_BYTES)
        if not inflate.eof or digest_of(text) != digest:
            return None
        return msgspec.json.decode(text, type=Offers)
    except (zlib.error, binascii.Error, ValueError, *DAMAGED):
        return None


class OffersStore:
    """Raises what redis-py raises when Redis is away."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys
        self._remembered: OrderedDict[str, Offers] = OrderedDict()

    async def keep(self, digest: str, text: bytes) -> None:
        """Have the document there for another OFFERS_KEPT_S. Raises TooLarge."""
        if not await self._r.pexpire(self._keys.offers(digest), OFFERS_KEPT_S * 1000):
            await self._r.set(self._keys.offers(digest), packed(text), px=OFFERS_KEPT_S * 1000)

    async def of(self, digests: Iterable[str]) -> dict[str, Offers]:
        """The documents of these digests, as far as they are there."""
        wanted = sorted(set(digests))
        new = [d for d in wanted if d not in self._remembered][:MAX_REMEMBERED]
        if new:
            answers = cast(list[str | None], await self._r.mget([self._keys.offers(d) for d in new]))
            for digest, stored in zip(new, answers, strict=True):
                offers = unpacked(stored, digest) if stored is not None else None
                if offers is not None:
                    self._remembered[digest] = offers
        found = {d: self._remembered[d] for d in wanted if d in self._remembered}
        for digest in found:
            self._remembered.move_to_end(digest)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return found
