"""What a box that is a stranger's may ask of Redis, judged command by command; who carries it out is the API's gate.

Pure: words, and whose they are → a verdict. The box reads what its workers hold and what is said to its machine, and
writes its own reports, events of itself, and the ends of its own runs. All else is refused, also what a login of a
machine (users.COMMANDS) may do.
"""

from __future__ import annotations

from collections.abc import Callable

from emp_orch.jobs.document.preview import MAX_PREVIEW_BYTES
from emp_orch.store.acl.stranger_rules import (
    Answer,
    Box,
    NotAllowed,
    Pass,
    PassIfHeld,
    PassIfOffers,
    Verdict,
    Words,
    about,
    number,
    own_event,
    own_worker,
    require,
    seconds,
    text,
)
from emp_orch.store.acl.stranger_scripts import FORGET, PUT, ROWS
from emp_orch.store.fleet.commands import MAX_COMMANDS
from emp_orch.store.fleet.events import MAX_EVENTS
from emp_orch.store.queue.offers import MAX_STORED_BYTES, OFFERS_KEPT_S
from emp_orch.store.queue.scripts import all_texts
from emp_orch.store.redis.confirmed import WAIT_MS
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import digest_of
from emp_orch.store.reports import reports

# Of a command that waits at the server.
MAX_BLOCK_S = 60.0
MAX_ACK_BYTES = 16_384
MAX_REPLICAS = 16
OK = b"+OK\r\n"
# Within a transaction: what an agent tells of itself.
QUEUED = frozenset({b"XADD", b"PUBLISH"})
MOST_QUEUED = 16


def digests(keys: Keys) -> dict[bytes, str]:
    """The scripts that machines run, by what they are asked for with."""
    texts = {**all_texts(keys), PUT: reports.PUT, FORGET: reports.FORGET}
    return {digest_of(texts[name]).encode(): name for name in ROWS}


class Strangers:
    """Judges what boxes send, for the keys of one fleet."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._digests = digests(keys)
        self._rows: dict[bytes, Callable[[Box, Words], Verdict]] = {
            b"PING": self._bare,
            b"TIME": self._bare,
            b"MULTI": self._bare,
            b"EXEC": self._bare,
            b"DISCARD": self._bare,
            b"HELLO": self._hello,
            b"CLIENT": self._client,
            b"WAIT": self._wait,
            b"EVALSHA": self._script,
            b"GET": self._get,
            b"HGET": self._hget,
            b"XADD": self._xadd,
            b"XREAD": self._xread,
            b"XREVRANGE": self._xrevrange,
            b"BLPOP": self._blpop,
            b"PEXPIRE": self._pexpire,
            b"SET": self._set,
            b"PUBLISH": self._publish,
            b"PUBSUB": self._pubsub,
        }

    @property
    def commands(self) -> frozenset[str]:
        """All that have a row."""
        return frozenset(name.decode() for name in self._rows)

    def judge(self, words: Words, box: Box, *, queued: int | None = None) -> Verdict:
        """Raises NotAllowed. `queued`: so many before it in the transaction, None: there is none."""
        name = words[0].upper()
        row = self._rows.get(name)
        if row is None:
            raise NotAllowed("it is no command of a machine")
        if queued is None or name in (b"EXEC", b"DISCARD"):
            return row(box, words)
        require(name in QUEUED, "no machine sends it within a transaction")
        require(queued < MOST_QUEUED, "Redis would keep too much for its transaction")
        verdict = row(box, words)
        # What is so now may be otherwise when it is carried out.
        require(isinstance(verdict, Pass), "no machine sends it within a transaction")
        return verdict

    def _bare(self, box: Box, words: Words) -> Verdict:
        _count(words, 1)
        return Pass(words)

    def _hello(self, box: Box, words: Words) -> Verdict:
        """Which form answers have; never a login."""
        require(len(words) == 2 and words[1] in (b"2", b"3"), "it is let in by its token alone")
        return Pass(words)

    def _client(self, box: Box, words: Words) -> Verdict:
        """What a client calls itself stays here: the gate's connections have names of their own."""
        wanted = {b"SETNAME": 3, b"SETINFO": 4}.get(words[1].upper() if len(words) > 1 else b"")
        require(wanted == len(words), "it is no command of a machine")
        return Answer(OK)

    def _wait(self, box: Box, words: Words) -> Verdict:
        _count(words, 3)
        number(words[1], MAX_REPLICAS)
        number(words[2], WAIT_MS)
        return Pass(words)

    def _script(self, box: Box, words: Words) -> Verdict:
        name = self._digests.get(words[1].lower()) if len(words) >= 3 else None
        if name is None:
            raise NotAllowed("no machine of this emp runs that script")
        wanted = {PUT: 5, FORGET: 4}.get(name, 0)
        require(words[2] == str(wanted).encode(), "it has not the keys that its script takes")
        return ROWS[name](self._keys, box, words, 3 + wanted)

    def _get(self, box: Box, words: Words) -> Verdict:
        _count(words, 2)
        self._is(words[1], self._keys.config(box.machine_id))
        return Pass(words)

    def _hget(self, box: Box, words: Words) -> Verdict:
        _count(words, 3)
        if words[1] == self._keys.machines.encode():
            require(words[2] == box.machine_id.encode(), "it is the report of another")
        else:
            self._is(words[1], self._keys.workers)
            own_worker(words[2], box)
        return Pass(words)

    def _xadd(self, box: Box, words: Words) -> Verdict:
        require(len(words) in (8, 10) and words[2:4] == (b"MAXLEN", b"~") and words[5] == b"*", "it is no notice")
        if words[1] == self._keys.events.encode():
            _count(words, 10)
            require(words[4] == str(MAX_EVENTS).encode(), "it would forget events")
            require((words[6], words[8]) == (b"type", b"data"), "it is no event")
            own_event(words[7], words[9], box)
            return Pass(words)
        self._is(words[1], self._keys.acks(box.machine_id))
        _count(words, 8)
        require(words[4] == str(MAX_COMMANDS).encode() and words[6] == b"ack", "it is no answer to an order")
        require(len(words[7]) <= MAX_ACK_BYTES, "it is too large")
        return Pass(words)

    def _xread(self, box: Box, words: Words) -> Verdict:
        upper = tuple(word.upper() for word in words[:-2])
        require(len(words) >= 4 and upper[-1] == b"STREAMS", "it reads more than one stream")
        options = upper[1:-1]
        require(len(options) % 2 == 0, "it is no command of a machine")
        for name, value in zip(options[::2], options[1::2], strict=True):
            most = {b"COUNT": MAX_COMMANDS, b"BLOCK": MAX_BLOCK_S * 1000}.get(name)
            require(most is not None and number(value, most or 0) > 0, "it would wait for longer than a machine does")
        self._is(words[-2], self._keys.commands(box.machine_id))
        return Pass(words)

    def _xrevrange(self, box: Box, words: Words) -> Verdict:
        require(words[2:] == (b"+", b"-", b"COUNT", b"1"), "it reads more than its last order")
        self._is(words[1], self._keys.commands(box.machine_id))
        return Pass(words)

    def _blpop(self, box: Box, words: Words) -> Verdict:
        _count(words, 3)
        require(words[1] in {self._keys.wake(w).encode() for w in box.workers}, "it is the bell of another")
        seconds(words[2], MAX_BLOCK_S)
        return Pass(words)

    def _pexpire(self, box: Box, words: Words) -> Verdict:
        _count(words, 3)
        self._digest(words[1])
        require(words[2] == str(OFFERS_KEPT_S * 1000).encode(), "it is kept for another time")
        return Pass(words)

    def _set(self, box: Box, words: Words) -> Verdict:
        """What a service offers: the only text that is the fleet's, and no machine's."""
        _count(words, 5)
        digest = self._digest(words[1])
        require(words[3:] == (b"PX", str(OFFERS_KEPT_S * 1000).encode()), "it is kept for another time")
        return PassIfOffers(words=words, digest=digest, text=text(words[2], MAX_STORED_BYTES))

    def _publish(self, box: Box, words: Words) -> Verdict:
        _count(words, 3)
        if words[1] == self._keys.startup_channel.encode():
            about(None, words[2], box)
            return Pass(words)
        require(len(words[2]) <= 2 * MAX_PREVIEW_BYTES, "it is too large")
        return PassIfHeld(words=words, job_id=self._job_of(words[1]), answer=b":0\r\n")

    def _pubsub(self, box: Box, words: Words) -> Verdict:
        require(len(words) == 3 and words[1].upper() == b"NUMSUB", "it is no command of a machine")
        nobody = b"*2\r\n$%d\r\n%b\r\n:0\r\n" % (len(words[2]), words[2])
        return PassIfHeld(words=words, job_id=self._job_of(words[2]), answer=nobody)

    def _is(self, key: bytes, own: str) -> None:
        require(key == own.encode(), "it is a key that is not its own")

    def _digest(self, key: bytes) -> str:
        name, head = text(key), self._keys.offers("")
        require(name.startswith(head) and len(name) > len(head), "it is a key that is not its own")
        return name.removeprefix(head)

    def _job_of(self, channel: bytes) -> str:
        name, head = text(channel, 1_000), self._keys.preview_channel("")
        require(name.startswith(head) and len(name) > len(head), "it is a channel that is not its own")
        return name.removeprefix(head)


def _count(words: Words, wanted: int) -> None:
    require(len(words) == wanted, "it is no command of a machine")
