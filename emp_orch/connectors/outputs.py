"""What a service made, on its way into the artifact store."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator

import aiohttp

UNKNOWN_TYPE = "application/octet-stream"
_CHUNK = 256 * 1024


def body_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body of `answer` in chunks."""
    return answer.content.iter_chunked(_CHUNK)


async def once(data: bytes) -> AsyncIterator[bytes]:
    """`data` as a stream."""
    yield data


def content_type_of(answer: aiohttp.ClientResponse, name: str) -> str:
    """What the answer says it is, or what its name says where the answer says nothing."""
    if answer.content_type != UNKNOWN_TYPE:
        return answer.headers.get("Content-Type", answer.content_type)
    return mimetypes.guess_type(name)[0] or UNKNOWN_TYPE
