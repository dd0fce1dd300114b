"""The scripts that a stranger's agent and workers run, and what each of their ARGV may be.

What is fenced by the token of a lease needs no look at the job: the token has 64 bits, only the claim's answer holds
it, and the script does nothing without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from emp_orch.jobs.document.model import Crash, JobError, Output, Progress, Result, outputs_of
from emp_orch.jobs.document.outputs import is_safe_name
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.matching.requirements import Requirements, signature
from emp_orch.store.acl.stranger_rules import (
    CLASS,
    MOST_NAME_BYTES,
    Box,
    Lanes,
    Pass,
    PassIfHeld,
    PassIfServed,
    Verdict,
    Words,
    class_of_group,
    document,
    number,
    own_event,
    own_worker,
    replaced,
    require,
    text,
    token,
)
from emp_orch.store.queue.claim import LANES_AT_ONCE, WAIT_S, RunRef
from emp_orch.store.queue.scripts import NAMES
from emp_orch.store.queue.submit import FULL_DISK_AVOID_MS, MAX_REASON
from emp_orch.store.queue.trim import AT_ONCE, MAX_ENDED
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import keys_of
from emp_orch.store.reports.sizes import MAX_REPORT_BYTES

PUT, FORGET = "reports/put", "reports/forget"
# Jobs at once, of one worker.
MAX_WANTED = 16
MOST_ENDS = 64
# What connectors are held to (500 letters; a reference of 1,000) several times over: a job keeps 200 of the first, and
# each is an event.
MAX_PROGRESS_BYTES = 8_192
MAX_RUN_BYTES = 16_384
LOST = b"$4\r\nlost\r\n"
_VERSION = re.compile(rb"[0-9]{1,15}:[0-9]{1,15}")

# `words` are all of it; ARGV begin at `at`.
Row = Callable[[Keys, Box, Words, int], Verdict]


def _count(args: Sequence[bytes], *wanted: int) -> None:
    require(len(args) in wanted, "it has not as many arguments as its script takes")


def _claim(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    args = words[at:]
    require(len(args) >= 7, "it has not as many arguments as its script takes")
    own_worker(args[0], box)
    token(args[2])
    number(args[3], box.lease_ms)
    number(args[4], WAIT_S * 1000)
    number(args[5], MAX_WANTED)
    ends = number(args[6], MOST_ENDS)
    _count(args, 7 + 3 * ends)
    for i in range(7, len(args), 3):
        text(args[i])
        _result(args[i + 2], token(args[i + 1]))
    return Pass(replaced(words, at + 1, class_of_group(args[1], box)))


def _unclaim(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    """It walks through all held jobs, whatever its token."""
    _count(words[at:], 1)
    token(words[at])
    return Pass(words, costly=True)


def _adopt(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    args = words[at:]
    _count(args, 4)
    own_worker(args[0], box)
    token(args[1])
    number(args[2], box.lease_ms)
    text(args[3])
    return Pass(words)


def _leave(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 1)
    own_worker(words[at], box)
    return Pass(words)


def _renew(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 3)
    number(words[at + 2], box.lease_ms)
    return _fenced(words, at)


def _progress(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 3)
    require(len(words[at + 2]) <= MAX_PROGRESS_BYTES, "its progress is too large")
    told: Progress = document(words[at + 2], Progress, "the progress")
    require(0 <= told.fraction <= 1, "its progress is no part of one")
    return _fenced(words, at)


def _began(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 3)
    require(len(words[at + 2]) <= MAX_RUN_BYTES, "its run is too large")
    document(words[at + 2], RunRef, "the run")
    return _fenced(words, at)


def _secrets_of(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 2)
    return _fenced(words, at)


def _fenced(words: Words, at: int) -> Verdict:
    text(words[at])
    token(words[at + 1])
    return Pass(words)


def _end(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    args = words[at:]
    _count(args, 11)
    job_id, held = text(args[0]), token(args[1])
    require(args[2].decode("ascii", "replace") in {*ENDED, JobStatus.PENDING}, "it is no verdict")
    _result(args[3], held)
    if args[4]:
        _outputs(document(args[4], JobError, "the error").outputs, held)
    require(len(args[5].decode("utf-8", "replace")) <= MAX_REASON, "its reason is too long")
    number(args[6], FULL_DISK_AVOID_MS)
    require(args[7] in (b"0", b"1") and args[8] == b"0", "it ends another's lease")
    if args[10]:
        document(args[10], tuple[Crash, ...], "the crashes")
    if not args[9]:
        require(args[2] != b"pending", "it names no lane that the job goes back to")
        return Pass(words)
    document(args[9], Requirements, "the requirements")
    return PassIfHeld(words=words, job_id=job_id, lane=signature(args[9]), answer=LOST)


def _lacks(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    args = words[at:]
    _count(args, 6)
    job_id = text(args[0])
    token(args[1])
    require(len(args[2].decode("utf-8", "replace")) <= MAX_REASON, "its reason is too long")
    asked = document(args[4], Requirements, "the requirements")
    require(args[3] == signature(args[4]).encode(), "the lane is another than its requirements'")
    require(asked.service in box.services, "the lane is of a service that the machine does not have")
    document(args[5], dict[str, object], "what it needs")
    return PassIfHeld(words=words, job_id=job_id, answer=LOST)


def _result(raw: bytes, held: str) -> None:
    if raw:
        _outputs(outputs_of(document(raw, Result, "the result"), None), held)


def _outputs(outputs: Sequence[Output], held: str) -> None:
    """Files of the very run, by the name that its token gives it."""
    for output in outputs:
        run, _, file = output.path.partition("/")
        attempt, _, name = run.partition("-")
        fits = attempt.isdecimal() and name == held[:8] and is_safe_name(file)
        require(fits, "an output in it is not of this run")


def _model(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 2)
    own_worker(words[at], box)
    require(CLASS.fullmatch(words[at + 1]) is not None, "it names no model")
    return Pass(words, model=words[at + 1])


def _new_lanes(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 2)
    number(words[at + 1], LANES_AT_ONCE)
    return Lanes(replaced(words, at, class_of_group(words[at], box)))


def _register(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    args = words[at:]
    require(3 <= len(args) <= 3 + LANES_AT_ONCE, "it has not as many arguments as its script takes")
    require(len(args[1]) <= MOST_NAME_BYTES and _VERSION.fullmatch(args[2]) is not None, "it names no version of lanes")
    lanes = tuple(text(word) for word in args[3:])
    return PassIfServed(words=replaced(words, at, class_of_group(args[0], box)), name=args[0], lanes=lanes)


def _retire(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _count(words[at:], 2)
    text(words[at + 1])
    return Pass(replaced(words, at, class_of_group(words[at], box)))


def _trim(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    """As a worker sends it: another number would forget what is to be kept."""
    _count(words[at:], 3)
    known = words[at].decode("ascii", "replace") in ENDED
    same = words[at + 1 :] == (str(MAX_ENDED).encode(), str(AT_ONCE).encode())
    require(known and same, "it would forget more than a worker does")
    return Pass(words)


def _put(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    args = words[at:]
    _own_report(keys, box, words, at, keys.events)
    require(len(args) >= 3 and len(args) % 2 == 1, "it has not as many arguments as its script takes")
    require(len(args[1]) <= MAX_REPORT_BYTES, "its report is too large")
    if args[2]:
        number(args[2], 1e15)
    for i in range(3, len(args), 2):
        own_event(args[i], args[i + 1], box)
    return Pass(words)


def _forget(keys: Keys, box: Box, words: Words, at: int) -> Verdict:
    _own_report(keys, box, words, at)
    _count(words[at:], 2)
    return Pass(words)


def _own_report(keys: Keys, box: Box, words: Words, at: int, *more: str) -> None:
    """KEYS are those of one kind of report, and the id is the machine's, or one of its workers'."""
    require(len(words) > at, "it names no report")
    given, subject = tuple(word.decode("utf-8", "replace") for word in words[3:at]), text(words[at])
    kinds = {kind: (*keys_of(keys, kind), *more) for kind in ("machine", "worker")}
    of_machine = given == kinds["machine"] and subject == box.machine_id
    require(of_machine or (given == kinds["worker"] and subject in box.workers), "it is the report of another")


ROWS: dict[str, Row] = {
    "claim/next": _claim,
    "claim/next_after_waiting": _claim,
    "claim/unclaim": _unclaim,
    "claim/adopt": _adopt,
    "claim/leave": _leave,
    "run/renew": _renew,
    "run/progress": _progress,
    "run/began": _began,
    "run/secrets_of": _secrets_of,
    "run/end": _end,
    "run/lacks": _lacks,
    "run/ran": _model,
    "run/cooled": _model,
    "lanes/new_lanes": _new_lanes,
    "lanes/register": _register,
    "lanes/retire": _retire,
    "upkeep/trim": _trim,
    PUT: _put,
    FORGET: _forget,
}
# What no machine runs, of the queue's: who submits, and the reconciler.
OTHERS = frozenset(
    {
        *("submit/submit", "submit/submit_one", "submit/cancel", "submit/retry", "lanes/judge"),
        *(name for name in NAMES if name.startswith(("upkeep/", "positions/")) and name != "upkeep/trim"),
    }
)
