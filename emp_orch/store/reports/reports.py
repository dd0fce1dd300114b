"""Reports of machines and workers: two hashes and two sorted sets, one writer per document.

A heartbeat touches only the `:seen` set, with the time of Redis itself. A report that was removed is not
recreated by a heartbeat: the script checks that the document exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, structs

from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.observed import MachineReport, Malformed, SeenMachine, SeenWorker, WorkerReport
from emp_orch.store.fleet.events import MAX_EVENTS, encode
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.damaged import DAMAGED, decoder
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script
from emp_orch.store.redis.scripts import Call, Script
from emp_orch.store.reports.sizes import Weighed, large_ones, too_large, weigh
from emp_orch.units import MAX_MS

R = TypeVar("R", MachineReport, WorkerReport)

# A document costs Redis little more than a heartbeat; written anew after so many, a damaged one lasts seconds.
BEATS_PER_DOCUMENT = 4
# A report is heard at Redis' own time; one that is so much later was not heard then.
FUTURE_MS = 5_000
# Of documents that are read a part at a time.
AT_ONCE = 500
# Under which there is no document.
_NO_ID = ""

# Machines of older releases send just these texts: tests/unit/test_packing.py.
PUT = script("reports/put", limits={"MAX_EVENTS": MAX_EVENTS})
FORGET = script("reports/forget", limits={"FUTURE_MS": FUTURE_MS})


def keys_of(keys: Keys, kind: str) -> list[str]:
    """The KEYS of both scripts for the documents of `kind`: machine or worker."""
    pair = [keys.machines, keys.machines_seen] if kind == "machine" else [keys.workers, keys.workers_seen]
    return [*pair, keys.reports_changed, keys.reports_seq]


class ReportWriter(Generic[R]):
    """Writes one subject's report: the document when it changed, else a heartbeat.

    Now and then the document goes out unchanged, so that one that somebody else damaged is whole again.
    """

    def __init__(self, keys: list[str], events: str, subject: str, call: Call) -> None:
        """`events`: the key of the stream. `call` sends a command."""
        self._keys = keys
        self._events = events
        self._subject = subject
        self._put = Script(call, PUT, len(keys) + 1)
        self._forget = Script(call, FORGET, len(keys))
        self._last = b""
        self._beats = 0
        self._wrote_ms = ""

    @property
    def wrote_ms(self) -> int | None:
        """When the last write was done, by Redis' clock; None when it was not, or nobody knows."""
        return int(self._wrote_ms) if self._wrote_ms else None

    async def write(self, report: R, events: Iterable[tuple[str, Mapping[str, Any]]] = ()) -> str | None:
        """Publish `report`, and `events` (type, data) of it; an unchanged one costs a heartbeat only, unless its record
        is gone.

        Returns the document that was there when somebody else has written since this writer last did.
        """
        text = msgspec.json.encode(report)
        told = [part for type_, data in events for part in encode(type_, data).values()]
        if text == self._last and self._beats < BEATS_PER_DOCUMENT:
            self._beats += 1
            found, other = await self._send(b"", told)
            if found:
                return other
        _, other = await self._send(text, told)
        self._last, self._beats = text, 0
        return other

    async def _send(self, text: bytes, told: list[str]) -> tuple[bool, str | None]:
        """Whether the script wrote, and who else did."""
        last, self._wrote_ms = self._wrote_ms, ""  # not known until it is answered
        now, other = await self._put(*self._keys, self._events, self._subject, text, last, *told)
        self._wrote_ms = str(now) if now else ""
        return bool(now), other

    async def withdraw(self) -> None:
        """Remove the report: the subject ends in good order and leaves no phantom."""
        self._last, self._wrote_ms = b"", ""
        await self._forget(*self._keys, self._subject, "")


def machine_writer(r: Client, keys: Keys, machine_id: str) -> ReportWriter[MachineReport]:
    return ReportWriter(keys_of(keys, "machine"), keys.events, machine_id, r.execute_command)


def worker_writer(r: Client, keys: Keys, worker_id: str, call: Call | None = None) -> ReportWriter[WorkerReport]:
    """`call` sends a command: Pipelined.call, where there is a line."""
    return ReportWriter(keys_of(keys, "worker"), keys.events, worker_id, call or r.execute_command)


_machine = decoder(MachineReport)
_worker = decoder(WorkerReport)


def _ms(score: float) -> int:
    """A score as a time; 0, "never heard", for one that cannot be one: anybody may have written it."""
    return int(score) if 0 <= score <= MAX_MS else 0


def _times(answer: list[Any]) -> dict[str, int]:
    """When each was seen, of `ZRANGE … WITHSCORES` as it came: pairs, or with RESP2 all in a row.

    `zrange` would write each number as text and read it again: a seventh of what it takes to read all reports.
    """
    pairs = zip(answer[::2], answer[1::2], strict=True) if answer and isinstance(answer[0], str) else answer
    return {str(member): _ms(float(score)) for member, score in pairs}


def _decode_all(
    kind: str,
    documents: dict[str, str],
    seen: Mapping[str, int],
    decode: Callable[[str], R],
    id_of: Callable[[R], str],
    bad: list[Malformed],
) -> dict[str, R]:
    reports: dict[str, R] = {}
    for subject, text in documents.items():
        try:
            report = decode(text)
        except DAMAGED as e:
            bad.append(Malformed(kind=kind, id=subject, error=str(e), seen_ms=seen.get(subject, 0)))
            continue
        if id_of(report) != subject:
            wrong = f"its document names {id_of(report)!r}"
            bad.append(Malformed(kind=kind, id=subject, error=wrong, seen_ms=seen.get(subject, 0)))
            continue
        reports[subject] = report
    return reports


class Reports(Struct, frozen=True, kw_only=True):
    """What was reported and can be read, and what cannot."""

    now_ms: int
    machines: dict[MachineId, SeenMachine]
    workers: dict[WorkerId, SeenWorker]
    malformed: tuple[Malformed, ...]


def _reports(
    now_ms: int,
    machine_docs: dict[str, str],
    machines_at: Mapping[str, int],
    worker_docs: dict[str, str],
    workers_at: Mapping[str, int],
) -> Reports:
    bad: list[Malformed] = []
    machines = _decode_all("machine", machine_docs, machines_at, _machine, lambda m: m.machine_id, bad)
    workers = _decode_all("worker", worker_docs, workers_at, _worker, lambda w: w.worker_id, bad)
    return Reports(
        now_ms=now_ms,
        machines={MachineId(i): SeenMachine(report=m, seen_ms=machines_at.get(i, 0)) for i, m in machines.items()},
        workers={WorkerId(i): SeenWorker(report=w, seen_ms=workers_at.get(i, 0)) for i, w in workers.items()},
        malformed=tuple(bad),
    )


async def read_reports(r: Client, keys: Keys, wanted: Iterable[str] = ()) -> Reports:
    """All reports with their last-seen times, in two round trips. Raises what redis-py raises when Redis is away.

    Where there are too many, or too large ones, those are left out that are not `wanted` (ids of machines and workers).
    """
    machines, workers = await weigh(r, keys)
    if machines.ids is not None or workers.ids is not None:
        return await _read_within(r, keys, machines, workers, wanted)
    async with r.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(keys.machines)
        pipe.execute_command("ZRANGE", keys.machines_seen, 0, -1, "WITHSCORES")
        pipe.hgetall(keys.workers)
        pipe.execute_command("ZRANGE", keys.workers_seen, 0, -1, "WITHSCORES")
        now, machine_docs, machine_seen, worker_docs, worker_seen = await pipe.execute()
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    return _reports(now_ms, machine_docs, _times(machine_seen), worker_docs, _times(worker_seen))


async def _read_within(r: Client, keys: Keys, machines: Weighed, workers: Weighed, wanted: Iterable[str]) -> Reports:
    """Those that may be read, a part at a time."""
    asked = sorted(set(wanted))
    now_ms = await time_ms(r)
    found = Reports(now_ms=now_ms, machines={}, workers={}, malformed=())
    for documents, weighed, of_machines in ((keys.machines, machines, True), (keys.workers, workers, False)):
        ids = await r.hkeys(documents) if weighed.ids is None else weighed.ids
        every = list(dict.fromkeys((*asked, *map(str, ids), *weighed.large)))
        for at in range(0, len(every), AT_ONCE):
            part = every[at : at + AT_ONCE]
            more = await read_some(r, keys, now_ms, *((part, []) if of_machines else ([], part)))
            found = Reports(
                now_ms=now_ms,
                machines=found.machines | more.machines,
                workers=found.workers | more.workers,
                malformed=(*found.malformed, *more.malformed),
            )
    return found


async def read_some(r: Client, keys: Keys, now_ms: int, machines: Sequence[str], workers: Sequence[str]) -> Reports:
    """The reports of these subjects, as far as there are any, with their last-seen times. Too large ones are not read,
    and said to be."""
    kinds = (
        ("machine", machines, keys.machines, keys.machines_seen),
        ("worker", workers, keys.workers, keys.workers_seen),
    )
    large = {kind: await large_ones(r, documents, ids) for kind, ids, documents, _ in kinds}
    async with r.pipeline(transaction=False) as pipe:
        for kind, ids, documents, seen in kinds:
            if ids:
                pipe.hmget(documents, [_NO_ID if i in large[kind] else i for i in ids])
                pipe.zmscore(seen, list(ids))
        answers = iter(await pipe.execute() if machines or workers else ())
    found: list[tuple[dict[str, str], dict[str, int]]] = []
    unread: list[Malformed] = []
    for kind, ids, _, _ in kinds:
        texts, scores = (next(answers), next(answers)) if ids else ([], [])
        at = {i: _ms(score or 0) for i, score in zip(ids, scores, strict=True)}
        found.append(({i: text for i, text in zip(ids, texts, strict=True) if text is not None}, at))
        unread += too_large(kind, large[kind], at)
    reports = _reports(now_ms, *found[0], *found[1])
    return structs.replace(reports, malformed=(*reports.malformed, *unread)) if unread else reports


async def read_machine(r: Client, keys: Keys, machine_id: str) -> MachineReport | None:
    """As read_worker."""
    text = await r.hget(keys.machines, machine_id)
    try:
        return None if text is None else _machine(text)
    except DAMAGED:
        return None


async def read_worker(r: Client, keys: Keys, worker_id: str) -> WorkerReport | None:
    """What this worker said last; None when it said nothing, or nothing that can be read."""
    text = await r.hget(keys.workers, worker_id)
    try:
        return None if text is None else _worker(text)
    except DAMAGED:
        return None


async def forget_machine(r: Client, keys: Keys, machine_id: str, *, seen_ms: int | None) -> bool:
    """Remove a machine's report unless it reported after `seen_ms`. True when it is gone."""
    args = [machine_id, "" if seen_ms is None else seen_ms]
    return bool(await r.register_script(FORGET)(keys=keys_of(keys, "machine"), args=args))


async def forget_worker(r: Client, keys: Keys, worker_id: str, *, seen_ms: int | None) -> bool:
    """Remove a worker's report unless it reported after `seen_ms`. True when it is gone."""
    args = [worker_id, "" if seen_ms is None else seen_ms]
    return bool(await r.register_script(FORGET)(keys=keys_of(keys, "worker"), args=args))
