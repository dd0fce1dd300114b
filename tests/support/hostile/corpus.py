"""What somebody who can write into Redis may leave there: every key with every wrong type and edge value, every
document with every part of it replaced. A case is made from the keys as they stand, and names itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio as aioredis

Raw = aioredis.Redis

# What a number, a text or anything else in a document may be replaced by.
EDGES: tuple[Any, ...] = (
    *(None, True, 0, -1, 0.5, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 1e308, -1e308),
    *(253_402_300_800_000, "", "x", "1", "\x00", "\u2028", "../../../etc/passwd", "<script>", "é" * 300, "x" * 70_000),
    *([], {}, [[]], [None], {"": None}, ["x"] * 500, {"services": 7}),
)
# Whole documents that are none.
TEXTS: tuple[bytes, ...] = (
    *(
        b"",
        b" ",
        b"null",
        b"7",
        b"-1",
        b"1e400",
        b"NaN",
        b"Infinity",
        b'"x"',
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe\x00",
        b"\xed\xa0\x80",
    ),
    *(
        b"1" + b"0" * 400,
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b"0|1|2|3|4|",
        b"|||||{}",
        b"9" * 5_000,
        b"\x00" * 50,
        b"a b\nc",
    ),
)
SCORES = (b"inf", b"-inf", b"-1", b"0.5", b"1e30", b"-1e30", b"1e308", b"253402300800000")
HIGHEST = b"18446744073709551615-18446744073709551615"
KINDS = ("string", "list", "set", "zset", "hash", "stream")
FAR_BYTES = 3 * 1024**2


@dataclass(frozen=True)
class Case:
    """One harm to one key: commands that do it, which is put back after it. `wrong_type`: it is of no use now."""

    key: str
    name: str
    commands: tuple[tuple[Any, ...], ...]
    wrong_type: bool = False

    def __str__(self) -> str:
        return f"{self.key}: {self.name}"


def make(key: bytes, kind: str) -> tuple[Any, ...]:
    """A command that makes a key of this type."""
    match kind:
        case "string":
            return ("SET", key, b"a stranger's")
        case "list":
            return ("RPUSH", key, b"a", b"b")
        case "set":
            return ("SADD", key, b"a", b"b")
        case "zset":
            return ("ZADD", key, 1, b"a", 2, b"b")
        case "hash":
            return ("HSET", key, b"a", b"b")
        case _:
            return ("XADD", key, b"*", b"a", b"b")


@dataclass(frozen=True)
class Standing:
    """A key as it stands: its type, and its parts: the text, fields, members or entries."""

    key: str
    kind: str
    parts: Sequence[tuple[bytes, bytes]]


Scores = list[tuple[bytes, float]]


def _bytes(answer: bytes | str | None) -> bytes:
    """What Redis holds, as it is; this client decodes nothing."""
    assert isinstance(answer, bytes)
    return answer


async def standing(r: Raw, spared: bytes = b"") -> list[Standing]:
    """All keys, with what is in them, but for the parts of hashes and sorted sets that are about `spared`."""
    found = []
    for key in sorted(await r.keys(b"*")):
        kind = _bytes(await r.type(key)).decode()
        parts: list[tuple[bytes, bytes]]
        match kind:
            case "string":
                parts = [(b"", _bytes(await r.get(key) or b""))]
            case "hash":
                parts = [(_bytes(f), _bytes(v)) for f, v in (await r.hgetall(key)).items()]
            case "zset":
                parts = [
                    (_bytes(m), str(s).encode()) for m, s in cast(Scores, await r.zrange(key, 0, -1, withscores=True))
                ]
            case "set":
                parts = [(_bytes(m), b"") for m in await r.smembers(key)]
            case "list":
                parts = [(_bytes(m), b"") for m in await r.lrange(key, 0, -1)]
            case _:
                parts = [
                    (_bytes(f), _bytes(v))
                    for _, fields in await r.xrevrange(key, count=3) or ()
                    for f, v in (fields or {}).items()
                ]
        parts = [(f, v) for f, v in parts if not (spared and kind in ("hash", "zset") and spared in f)]
        found.append(Standing(_bytes(key).decode(), kind, parts))
    return found


def wrong_types(keys: Sequence[Standing]) -> Iterator[Case]:
    """Each key as each other type."""
    for s in keys:
        key = s.key.encode()
        for kind in KINDS:
            if kind != s.kind:
                yield Case(s.key, f"is a {kind}", (("DEL", key), make(key, kind)), wrong_type=True)


def edges(keys: Sequence[Standing]) -> Iterator[Case]:
    """Each part of each key as each edge value."""
    for s in keys:
        yield from _edges_of(s)


def _edges_of(s: Standing) -> Iterator[Case]:
    key = s.key.encode()
    match s.kind:
        case "string":
            for text in (*TEXTS, b"x" * FAR_BYTES):
                yield Case(s.key, f"= {_short(text)}", (("SET", key, text),))
        case "hash":
            for field, _ in s.parts:
                for text in TEXTS:
                    yield Case(s.key, f"{_short(field)} = {_short(text)}", (("HSET", key, field, text),))
            for text in TEXTS:
                yield Case(s.key, f"a stranger's {_short(text)}", (("HSET", key, text, text),))
        case "zset":
            for member, _ in s.parts:
                for score in SCORES:
                    yield Case(s.key, f"{_short(member)} at {score.decode()}", (("ZADD", key, score, member),))
            for text in TEXTS:
                yield Case(s.key, f"a member {_short(text)}", (("ZADD", key, 1, text),))
        case "set":
            for text in TEXTS:
                yield Case(s.key, f"a member {_short(text)}", (("SADD", key, text),))
        case "list":
            for text in TEXTS:
                yield Case(s.key, f"a member {_short(text)}", (("LPUSH", key, text),))
        case _:
            for field in dict.fromkeys(f for f, _ in s.parts):
                for text in TEXTS:
                    fields = [part for f, v in dict(s.parts).items() for part in (f, text if f == field else v)]
                    yield Case(s.key, f"{_short(field)} = {_short(text)}", (("XADD", key, b"*", *fields),))
            yield Case(s.key, "an entry of the highest id", (("XADD", key, HIGHEST, b"a", b"b"),))
            yield Case(
                s.key, "an entry of tomorrow", (("XADD", key, b"99999999999999-0", b"type", b"x", b"data", b"{}"),)
            )


def mutations(keys: Sequence[Standing], rng: random.Random) -> Iterator[Case]:
    """For ever: one part of a document of some key replaced by an edge value, taken away, or one more put in."""
    documents = [(s, field, text) for s in keys for field, text in s.parts if _json_of(text) is not None]
    while True:
        s, field, text = rng.choice(documents)
        head, value = _json_of(text) or (b"", None)
        changed, name = _mutated(value, rng)
        new = head + json.dumps(changed, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        key = s.key.encode()
        match s.kind:
            case "string":
                command: tuple[Any, ...] = ("SET", key, new)
            case "hash":
                command = ("HSET", key, field, new)
            case "stream":
                fields = dict(s.parts) | {field: new}
                command = ("XADD", key, b"*", *(part for pair in fields.items() for part in pair))
            case "zset":
                command = ("ZADD", key, 1, new)
            case _:
                command = ("SADD" if s.kind == "set" else "LPUSH", key, new)
        yield Case(s.key, f"{_short(field)}{name}", (command,))


def _json_of(text: bytes) -> tuple[bytes, Any] | None:
    """A document, and what stands before it (a job's record begins with its place)."""
    for start in (b"{", b"["):
        at = text.find(start)
        if 0 <= at < 120:
            try:
                return text[:at], json.loads(text[at:])
            except ValueError:
                continue
    return None


def _mutated(value: Any, rng: random.Random) -> tuple[Any, str]:
    """`value` with one part of it replaced, and where."""
    if isinstance(value, Mapping) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        if rng.random() < 0.05:
            return {k: v for k, v in value.items() if k != name}, f".{name} is gone"
        if rng.random() < 0.05:
            return {**value, "x" * 3: rng.choice(EDGES)}, " has one more"
        part, where = _mutated(value[name], rng)
        return {**value, name: part}, f".{name}{where}"
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        part, where = _mutated(value[at], rng)
        return [*value[:at], part, *value[at + 1 :]], f"[{at}]{where}"
    edge = rng.choice(EDGES)
    return edge, f" = {_short(repr(edge).encode())}"


def _short(text: bytes) -> str:
    shown = repr(text)[1:].strip("'\"")
    return shown if len(shown) < 40 else f"{shown[:30]}… ({len(text)} bytes)"
