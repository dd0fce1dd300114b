"""What a stranger's box may ask of Redis: each command and script has a row, and each row its bounds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import emp_orch.machine
import emp_orch.store
import emp_orch.worker
from emp_orch.jobs.matching.requirements import Requirements, canonical, signature
from emp_orch.store.acl.stranger_rules import (
    EVENTS,
    Answer,
    Box,
    Lanes,
    NotAllowed,
    Pass,
    PassIfHeld,
    PassIfServed,
    Verdict,
    class_of_group,
)
from emp_orch.store.acl.stranger_scripts import FORGET, OTHERS, PUT, ROWS
from emp_orch.store.acl.strangers import MOST_QUEUED, Strangers, digests
from emp_orch.store.acl.users import COMMANDS
from emp_orch.store.queue.scripts import NAMES
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import keys_of

KEYS = Keys("p:")
STRANGERS = Strangers(KEYS)
WORKER, OTHER = "renders-a-worker-0", "renders-b-worker-0"
BOX = Box(
    machine_id="renders-a",
    group="renders",
    workers=frozenset({WORKER}),
    services=frozenset({"comfyui"}),
    lease_ms=30_000,
)
DIGESTS = {name: digest.decode() for digest, name in digests(KEYS).items()}
TOKEN, CLASS = "0123456789abcdef", "fedcba9876543210"
LANE = canonical(Requirements(service="comfyui")).decode()
FOREIGN = canonical(Requirements(service="simulation")).decode()
CLAIM = (WORKER, CLASS, TOKEN, 30_000, 20_000, 1, 0)


def judged(*words: object, queued: int | None = None) -> Verdict:
    return STRANGERS.judge(tuple(str(w).encode() for w in words), BOX, queued=queued)


def script(name: str, *args: object, keys: tuple[str, ...] = ()) -> tuple[object, ...]:
    return ("EVALSHA", DIGESTS[name], len(keys), *keys, *args)


def event(type_: str = "machine_status", **data: Any) -> str:
    return json.dumps({"type": type_, "machine_id": "renders-a", **data})


def xadd(data: str, type_: str = "machine_status") -> tuple[object, ...]:
    return ("XADD", KEYS.events, "MAXLEN", "~", 10_000, "*", "type", type_, "data", data)


def put(kind: str, subject: str, *more: object) -> tuple[object, ...]:
    return script(PUT, subject, "{}", "", *more, keys=(*keys_of(KEYS, kind), KEYS.events))


def end(verdict: str = "completed", result: str = "{}", requirements: str = "", expired: int = 0) -> tuple[object, ...]:
    return script("run/end", "j1", TOKEN, verdict, result, "", "why", 0, 0, expired, requirements, "")


def output(path: str) -> str:
    one = {"name": "a.png", "content_type": "image/png", "size": 1, "sha256": "0" * 64, "path": path}
    return json.dumps({"outputs": [one]})


def test_every_script_has_a_row_or_is_known_to_be_none_of_a_machines() -> None:
    assert set(ROWS) - {PUT, FORGET} == set(NAMES) - OTHERS
    assert set(NAMES) >= OTHERS
    # What a worker's dealings with the queue name is in the rows.
    claim = Path(emp_orch.store.__path__[0], "queue", "claim.py").read_text()
    used = set(re.findall(r"_scripts\.(\w+)", claim)) | {"trim"}
    assert used == {name.rpartition("/")[2] for name in ROWS if name not in (PUT, FORGET)}


def test_every_event_that_a_machine_or_worker_appends_is_known() -> None:
    said = re.compile(r'(?:_tell|tell|\bevent|_announce|announce|append|append_machine)\(\s*\(?(?:[^,"()]+,\s*)?'
                      r'(?:f?"[^"]*",\s*)?"([a-z_]+)"')  # fmt: skip
    found: set[str] = set()
    for room in (emp_orch.machine, emp_orch.worker):
        for path in Path(room.__path__[0]).rglob("*.py"):
            found |= set(said.findall(path.read_text()))
    assert {"machine_status", "machine_stopped", "command_done", "worker_status", "program_state"} <= found
    assert found <= EVENTS


def test_no_command_is_more_than_a_machines_login_has() -> None:
    own = {word.partition("|")[0].upper() for word in COMMANDS}
    assert own >= STRANGERS.commands


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("TIME",), Pass),
        (("HELLO", 3), Pass),
        (("CLIENT", "SETNAME", "emp:worker:x"), Answer),
        (("CLIENT", "SETINFO", "LIB-NAME", "redis-py"), Answer),
        (("GET", KEYS.config("renders-a")), Pass),
        (("HGET", KEYS.workers, WORKER), Pass),
        (("HGET", KEYS.machines, "renders-a"), Pass),
        (("XREAD", "COUNT", 100, "BLOCK", 10_000, "STREAMS", KEYS.commands("renders-a"), "0-0"), Pass),
        (("XREVRANGE", KEYS.commands("renders-a"), "+", "-", "COUNT", 1), Pass),
        (("XADD", KEYS.acks("renders-a"), "MAXLEN", "~", 1_000, "*", "ack", "{}"), Pass),
        (("BLPOP", KEYS.wake(WORKER), 20.0), Pass),
        (xadd(event()), Pass),
        (("PUBLISH", KEYS.startup_channel, event()), Pass),
        (("PUBLISH", KEYS.preview_channel("j1"), "picture"), PassIfHeld),
        (("PUBSUB", "NUMSUB", KEYS.preview_channel("j1")), PassIfHeld),
        (put("worker", WORKER), Pass),
        (put("machine", "renders-a", "machine_status", event()), Pass),
        (script(FORGET, WORKER, "", keys=tuple(keys_of(KEYS, "worker"))), Pass),
        (script("claim/next", *CLAIM), Pass),
        (script("claim/next", *CLAIM[:-1], 1, "j0", TOKEN, output(f"1-{TOKEN[:8]}/a.png")), Pass),
        (script("claim/adopt", WORKER, TOKEN, 30_000, "j1"), Pass),
        (end(result=output(f"12-{TOKEN[:8]}/a.png")), Pass),
        (end("pending", "", LANE), PassIfHeld),
        (script("run/lacks", "j1", TOKEN, "why", signature(LANE.encode()), LANE, "{}"), PassIfHeld),
        (script("lanes/new_lanes", CLASS, 500), Lanes),
        (script("lanes/register", CLASS, "", "0:1", "lane"), PassIfServed),
        (script("upkeep/trim", "completed", 20_000, 256), Pass),
    ],
)
def test_what_a_machine_sends_goes_on(words: tuple[object, ...], kind: type) -> None:
    assert isinstance(judged(*words), kind)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        *((words, "no command of a machine") for words in (
            ("KEYS", "*"), ("SCAN", 0), ("EVAL", "return 1", 0), ("SCRIPT", "LOAD", "x"), ("CONFIG", "GET", "*"),
            ("ACL", "LIST"), ("SUBSCRIBE", "x"), ("HGETALL", KEYS.jobs), ("MGET", KEYS.payload("j1")), ("AUTH", "x"),
            ("SELECT", 1), ("FLUSHALL",), ("DEL", KEYS.jobs), ("CLIENT", "KILL", "TYPE", "normal"),
            ("DEBUG", "SLEEP", 9),
            ("PSUBSCRIBE", "*"), ("SSUBSCRIBE", "x"), ("CLIENT", "REPLY", "OFF"), ("CLIENT", "TRACKING", "ON"),
            ("PUBSUB", "CHANNELS"), ("MONITOR",), ("RESET",), ("QUIT",), ("REPLICAOF", "h", 1), ("CLIENT",),
        )),
        (("HELLO", 3, "AUTH", "default", "x"), "token alone"),
        (script("lanes/register", CLASS, "", "x" * 1_000), "no version of lanes"),
        (script("run/progress", "j1", TOKEN, json.dumps({"fraction": 0.5, "message": "x" * 9_000})), "too large"),
        (script("run/began", "j1", TOKEN, json.dumps({"connector": "", "url": "", "ref": "x" * 20_000})), "too large"),
        (script("run/progress", "j1", TOKEN, '{"fraction":1e308}'), "no part of one"),
        (xadd(event(error="x" * 20_000)), "too large"),
        (script("lanes/register", CLASS, "x" * 1_000, "1:1"), "no version of lanes"),
        (("GET", KEYS.payload("j1")), "not its own"),
        (("GET", KEYS.config("renders-b")), "not its own"),
        (("GET", KEYS.generation("f")), "not its own"),
        (("HGET", KEYS.jobs, "j1"), "not its own"),
        (("HGET", KEYS.workers, OTHER), "not its own"),
        (("HGET", KEYS.members("f"), "renders-a"), "not its own"),
        (("HGET", KEYS.machines, "renders-b"), "of another"),
        (("XREAD", "BLOCK", 0, "STREAMS", KEYS.commands("renders-a"), "$"), "wait for longer"),
        (("XREAD", "STREAMS", KEYS.events, "0-0"), "not its own"),
        (("XREAD", "STREAMS", KEYS.commands("renders-a"), KEYS.events, "0", "0"), "more than one stream"),
        (("XREVRANGE", KEYS.commands("renders-a"), "+", "-"), "more than its last"),
        (("XADD", KEYS.commands("renders-a"), "MAXLEN", "~", 1_000, "*", "command", "{}"), "not its own"),
        (("XADD", KEYS.acks("renders-b"), "MAXLEN", "~", 1_000, "*", "ack", "{}"), "not its own"),
        (("XADD", KEYS.events, "MAXLEN", "~", 0, "*", "type", "machine_status", "data", event()), "forget events"),
        (("BLPOP", KEYS.wake(OTHER), 1), "of another"),
        (("BLPOP", KEYS.wake(WORKER), 0), "longer than"),
        (("BLPOP", KEYS.wake(WORKER), "nan"), "longer than"),
        (xadd(json.dumps({"type": "machine_status", "machine_id": "renders-b"})), "another than itself"),
        (xadd(event(worker_id=OTHER)), "another than itself"),
        (xadd(json.dumps({"type": "machine_status"})), "another than itself"),
        (xadd(event("job_completed"), "job_completed"), "no machine appends"),
        (xadd(event("job_completed")), "no machine appends"),
        (xadd("[1]"), "does not fit"),
        (put("worker", OTHER), "report of another"),
        (put("machine", WORKER), "report of another"),
        (put("worker", WORKER, "job_completed", event("job_completed")), "no machine appends"),
        (script(PUT, WORKER, "{}", "", keys=(*keys_of(KEYS, "worker"), KEYS.jobs)), "report of another"),
        (script(PUT, WORKER, "{}", ""), "keys that its script takes"),
        (script("claim/next", OTHER, *CLAIM[1:]), "not its own"),
        (script("claim/next", *CLAIM[:3], 10**12, *CLAIM[4:]), "a number in it"),
        (script("claim/next", *CLAIM[:5], 1_000, 0), "a number in it"),
        (script("claim/next", *CLAIM[:-1], 1, "j0", TOKEN, output("1-00000000/a.png")), "not of this run"),
        (script("claim/next", *CLAIM[:-1], 1), "as many arguments"),
        (script("claim/next", WORKER, "x", *CLAIM[2:]), "no class"),
        (script("claim/next", WORKER, CLASS, "guess", *CLAIM[3:]), "no token"),
        (script("claim/adopt", OTHER, TOKEN, 1, "j1"), "not its own"),
        (script("run/progress", "j1", TOKEN, '1,"worker_id":"x"'), "does not fit"),
        (end(result=output("../other/a.png")), "not of this run"),
        (end(result=output(f"1-{TOKEN[:8]}/../../x")), "not of this run"),
        (end("begun"), "no verdict"),
        (end("pending", ""), "names no lane"),
        (end(expired=1), "another's lease"),
        (script("run/lacks", "j1", TOKEN, "w", signature(FOREIGN.encode()), FOREIGN, "{}"), "does not have"),
        (script("run/lacks", "j1", TOKEN, "w", "0" * 16, LANE, "{}"), "another than its requirements'"),
        (script("run/ran", OTHER, CLASS), "not its own"),
        (script("upkeep/trim", "completed", 0, 10_000), "forget more"),
        (("EVALSHA", "0" * 40, 0), "no machine of this emp"),
        (("EVALSHA",), "no machine of this emp"),
    ],
)  # fmt: skip
def test_what_is_another_s_is_refused(words: tuple[object, ...], why: str) -> None:
    with pytest.raises(NotAllowed, match=why):
        judged(*words)


def test_classes_are_told_apart_by_pool() -> None:
    said = judged(*script("claim/next", *CLAIM))
    assert isinstance(said, Pass)
    assert said.words[4] == class_of_group(CLASS.encode(), BOX) != CLASS.encode()
    other = Box(machine_id="x", group="x", workers=frozenset({"x-worker-0"}), services=frozenset(), lease_ms=1)
    assert class_of_group(CLASS.encode(), other) != said.words[4]


def test_within_a_transaction_only_notices_are_taken() -> None:
    assert isinstance(judged(*xadd(event()), queued=0), Pass)
    for words in (("TIME",), script("lanes/new_lanes", CLASS, 500), ("BLPOP", KEYS.wake(WORKER), 1), ("MULTI",)):
        with pytest.raises(NotAllowed, match="transaction"):
            judged(*words, queued=0)
    # What is so now may be otherwise when it is carried out; and Redis keeps all of it until then.
    assert isinstance(judged("PUBLISH", KEYS.preview_channel("j1"), "x"), PassIfHeld)
    with pytest.raises(NotAllowed, match="transaction"):
        judged("PUBLISH", KEYS.preview_channel("j1"), "x", queued=0)
    with pytest.raises(NotAllowed, match="keep too much"):
        judged(*xadd(event()), queued=MOST_QUEUED)
