"""What a seal stands for: this document, for this purpose, by this key; and what a machine makes of it."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.machine.home.trust import Floor, OutOfDate, Trust
from emp_orch.seals import KEY_BYTES, CommandKey, Forged, OtherKey, Seal, Stamp, for_command
from emp_orch.store.fleet.commands import CommandVerb, StampedCommand

SEAL = Seal(b"k" * KEY_BYTES)
KEY = CommandKey(fleet="f", machine="m", key=SEAL.hex())
OBJECTS = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20), min_size=1, max_size=4)


@given(OBJECTS)
def test_what_was_sealed_is_opened_as_it_was_and_read_by_who_knows_no_seals(document: dict[str, object]) -> None:
    text = msgspec.json.encode(document)
    sealed = SEAL.sealed("a", text)
    assert SEAL.opened("a", sealed, "x") == text
    assert SEAL.opened("a", sealed.decode(), "x") == text
    assert {k: v for k, v in json.loads(sealed).items() if k in document and k != "seal"}.keys() <= document.keys()


@given(OBJECTS, st.data())
def test_a_document_that_was_changed_anywhere_is_refused(document: dict[str, object], data: st.DataObject) -> None:
    sealed = bytearray(SEAL.sealed("a", msgspec.json.encode(document)))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] = data.draw(st.integers(0, 255).filter(lambda b: b != sealed[at]))
    with pytest.raises(Forged):
        SEAL.opened("a", bytes(sealed), "x")


def test_a_seal_is_for_one_purpose_and_of_one_key() -> None:
    sealed = SEAL.sealed(for_command("f", "m"), b'{"a":1}')
    with pytest.raises(Forged, match="meant for another"):
        SEAL.opened(for_command("f", "n"), sealed, "x")
    with pytest.raises(OtherKey):
        Seal(b"o" * KEY_BYTES).opened(for_command("f", "m"), sealed, "x")
    assert SEAL.derived("a") != SEAL.derived("b")
    for text in ("", "{}", "null", '{"a":1}', '{"a":1,"seal":"x"}', "x" * 10_000, "\udcff"):
        with pytest.raises(Forged, match="no seal"):
            SEAL.opened("a", text, "x")
    assert SEAL.hex() not in repr(SEAL)


def _said(epoch: int, count: int) -> str:
    command = StampedCommand(epoch=epoch, count=count, seq="s", verb=CommandVerb.STOP_PROGRAM, program="p")
    return SEAL.sealed(for_command("f", "m"), msgspec.json.encode(command)).decode()


def _judge(trust: Trust, text: str) -> str:
    try:
        return asyncio.run(trust.command(text)).verb
    except OutOfDate as e:
        return e.message
    except Forged:
        return "refused"


def test_a_command_is_obeyed_once_and_none_after_a_newer_one() -> None:
    trust = Trust(lambda: KEY, Floor())
    told = [_judge(trust, _said(*stamp)) for stamp in ((2, 1), (2, 2), (2, 2), (2, 1), (1, 9), (3, 1), (2, 3))]
    older = ["epoch 1 is older than 2", "stop_program", "epoch 2 is older than 3"]
    assert told == ["stop_program", "stop_program", "refused", "refused", *older]
    assert trust.floor.stamp == Stamp(epoch=3, count=1)
    assert trust.words.startswith("4 times; the last: epoch 2")


def test_another_key_begins_anew_and_says_what_was_before_it() -> None:
    floor = Floor(key="another", stamp=Stamp(epoch=9, count=9))
    assert _judge(Trust(lambda: KEY, floor), _said(1, 1)) == "stop_program"
    since = msgspec.structs.replace(KEY, since=Stamp(epoch=1, count=5))
    assert _judge(Trust(lambda: since, Floor()), _said(1, 5)) == "refused"
    assert _judge(Trust(lambda: since, Floor()), _said(1, 6)) == "stop_program"


async def test_who_forges_under_other_keys_holds_nothing_up() -> None:
    trust = Trust(lambda: KEY, Floor())
    other = Seal(b"o" * KEY_BYTES).sealed(for_command("f", "m"), b'{"a":1}').decode()
    async with asyncio.timeout(30):
        for _ in range(500):
            with pytest.raises(OtherKey):
                await trust.command(other)
    assert (await trust.command(_said(1, 1))).verb == "stop_program"


async def test_a_key_that_is_on_its_way_is_waited_for() -> None:
    keys = [KEY] * 3
    other = CommandKey(fleet="f", machine="m", key=(b"o" * KEY_BYTES).hex())
    command = StampedCommand(epoch=1, count=1, seq="s", verb=CommandVerb.START_PROGRAM)
    text = other.seal.sealed(for_command("f", "m"), msgspec.json.encode(command)).decode()
    trust = Trust(lambda: keys.pop() if keys else other, Floor())
    assert (await trust.command(text)).verb == "start_program"
    assert not trust.words


def test_a_flood_of_forgeries_changes_the_report_a_few_times() -> None:
    changes: list[str] = []
    trust = Trust(lambda: KEY, Floor(), changed=lambda: changes.append(trust.words))
    for _ in range(2_000):
        _judge(trust, "{}")
    assert len(changes) == 13
    assert changes[-1].startswith("more than 1000 times")
