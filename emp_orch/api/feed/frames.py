"""What goes out to clients: frames encoded once, and batches of them joined once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from emp_orch.api.feed.gzipped import Text, deflated
from emp_orch.store.fleet.events import Event
from emp_orch.store.redis.damaged import DAMAGED

T = TypeVar("T")

Order = tuple[int, int]
START: Order = (0, 0)

_STREAM_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX_PART = 2**64 - 1


def parse_id(text: str) -> Order | None:
    """A stream id as a pair that sorts; None when `text` is none."""
    match = _STREAM_ID.fullmatch(text)
    found = (int(match[1]), int(match[2])) if match else None
    return found if found and max(found) <= _MAX_PART else None


class JobEvent(Struct, frozen=True, kw_only=True):
    """What every event of one job carries."""

    job_id: str
    status: str = ""


class LaneEvent(Struct, frozen=True, kw_only=True):
    """What `lane_unworkable` and `lane_workable` carry: the jobs that wait in that lane changed."""

    lane: str


class Frame:
    """One message, encoded once for all clients. `id` is the stream id, None for what is not in the stream."""

    def __init__(self, event: str, data: Any, id_: str | None = None) -> None:
        self.event = event
        self.id = id_
        self.order = parse_id(id_) if id_ else None
        self.data: bytes = data if isinstance(data, bytes) else msgspec.json.encode(data)

    @classmethod
    def of(cls, event: Event) -> Frame:
        # SSE would end the event's name at a newline.
        name = event.type if event.type.isprintable() and event.type else "malformed"
        return cls(name, event.data, event.id)

    @cached_property
    def job(self) -> JobEvent | None:
        """The job that this event of the stream is about; None for any other event."""
        return self._about("job_", JobEvent)

    @cached_property
    def lane(self) -> str | None:
        """The lane whose verdict this event tells; None for any other event."""
        told = self._about("lane_", LaneEvent)
        return told.lane if told else None

    def _about(self, prefix: str, type_: type[T]) -> T | None:
        if self.id is None or not self.event.startswith(prefix):
            return None
        try:
            return msgspec.json.decode(self.data, type=type_)
        except DAMAGED:
            return None

    @cached_property
    def sse(self) -> bytes:
        """As the event stream format has it (HTML standard, §9.2). JSON has no raw newlines, so one data line does."""
        return self._sse_head + self.data + b"\n\n"

    def pieces(self, *, packed: bool) -> Sequence[bytes]:
        """`sse` in parts; `packed`: as parts of a gzip stream."""
        return (deflated(self.sse) if packed else self.sse,)

    @property
    def _sse_head(self) -> bytes:
        head = f"event: {self.event}\n" + (f"id: {self.id}\n" if self.id else "")
        return head.encode() + b"data: "

    @cached_property
    def ws(self) -> str:
        return self._ws_of(self.data)

    def _ws_of(self, data: bytes) -> str:
        return msgspec.json.encode({"type": self.event, "id": self.id, "data": msgspec.Raw(data)}).decode()


class Large(Frame):
    """A frame around something large that many are sent: `body` is one object for all of them, not copied here."""

    def __init__(self, event: str, head: bytes, body: Text, tail: bytes, id_: str | None) -> None:
        super().__init__(event, b"", id_)
        self._parts = (head, body, tail)

    def pieces(self, *, packed: bool) -> Sequence[bytes]:
        head, body, tail = self._parts
        ends = (self._sse_head + head, tail + b"\n\n")
        first, last = map(deflated, ends) if packed else ends
        return (first, body.bytes(packed=packed), last)

    @property
    def ws(self) -> str:  # made for each who asks, and kept by nobody
        head, body, tail = self._parts
        return self._ws_of(head + body.plain + tail)


class Batch:
    """Frames that go out together. Every client that gets all of them is sent the same bytes, joined once."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.size = sum(len(f.data) for f in frames)
        orders = [f.order for f in frames if f.order is not None]
        self.first = min(orders, default=None)
        self.last = max(orders, default=START)

    def after(self, order: Order) -> Batch:
        """Without the events up to `order`."""
        if self.first is None or self.first > order:
            return self
        return Batch([f for f in self.frames if f.order is None or f.order > order])

    @cached_property
    def text(self) -> Text:
        return Text(b"".join(f.sse for f in self.frames))

    def pieces(self, *, packed: bool) -> Iterator[bytes]:
        """What is sent, in parts, of which large ones are shared by all; `packed`: as parts of a gzip stream."""
        if any(isinstance(f, Large) for f in self.frames):
            for frame in self.frames:
                yield from frame.pieces(packed=packed)
        else:
            yield self.text.bytes(packed=packed)

    def chunk(self, *, packed: bool) -> bytes:
        """The same as one chunk of an HTTP/1.1 body (RFC 9112, §7.1)."""
        return self._packed_chunk if packed else self._chunk

    @cached_property
    def _chunk(self) -> bytes:
        return _chunk(self.text.plain)

    @cached_property
    def _packed_chunk(self) -> bytes:
        return _chunk(self.text.packed)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
