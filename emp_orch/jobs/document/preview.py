"""A preview: what a run looks like by now, as a small picture that is shown and not kept."""

from __future__ import annotations

from msgspec import Struct

MAX_PREVIEW_BYTES = 512 * 1024

# How a picture of each type begins; of WebP the size stands between.
_HEADS = {
    "image/png": (b"\x89PNG\r\n\x1a\n", b""),
    "image/jpeg": (b"\xff\xd8\xff", b""),
    "image/webp": (b"RIFF", b"WEBP"),
}


class Preview(Struct, frozen=True, kw_only=True):
    """In JSON `data` is base64."""

    content_type: str
    data: bytes


def is_shown(preview: Preview) -> bool:
    """Whether it is what it says, of a type that a browser shows and never runs, and not too large."""
    if preview.content_type not in _HEADS or len(preview.data) > MAX_PREVIEW_BYTES:
        return False
    head, later = _HEADS[preview.content_type]
    return preview.data.startswith(head) and preview.data[8:].startswith(later)
