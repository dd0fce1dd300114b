"""What a Redis that answers says when it refuses, in words: what it is, and the way out of just that."""

from __future__ import annotations

import re
from dataclasses import dataclass

from redis import exceptions as rexc

from emp_orch.store.redis.confirmed import NotConfirmed
from emp_orch.store.redis.damaged import REPAIR, KeyDamaged
from emp_orch.store.redis.pool import says_read_only
from emp_orch.store.redis.sentinel import NoPrimary


class NotLoaded(rexc.ResponseError):
    """The server does not know a script, and we may not send it: the fleet's reconciler does, within seconds."""


# "User x has no permissions to run the 'info' command", "No permissions to access a key"; older servers: "this user
# has no permissions to run the 'info' command", "… to access one of the keys used as arguments", "… of the channels".
_COMMAND = re.compile(r"run the '([^']+)' command")

# "MISCONF Errors writing to the AOF file: No space left on device", with "script: …" behind it where one ran.
_DISK = re.compile(r"MISCONF Errors writing to the AOF file: (.+?)(?: script: .*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`says` follows "Redis at …"."""

    says: str
    hint: str

    @property
    def words(self) -> str:
        return f"Redis {self.says}; {self.hint}"


_BUSY = Refusal(
    says="is busy with one script",
    hint="wait, or look with `redis-cli slowlog get` at what runs there beside emp",
)
_BY_WORD = {
    "MISCONF": Refusal(
        says="takes no writes, because it cannot write to its disk (MISCONF)",
        hint="look at the free space and the permissions of its folder, and into its log; it goes on by itself",
    ),
    "NOREPLICAS": Refusal(
        says="takes no writes, because too few replicas follow it (min-replicas-to-write)",
        hint="bring its replicas back, or lower min-replicas-to-write",
    ),
    "MASTERDOWN": Refusal(
        says="is a replica that has lost its primary", hint="let redis.url lead to the primary, or bring that back"
    ),
    "CLUSTERDOWN": Refusal(says="is a cluster that is down", hint="emp needs one Redis, not a cluster"),
    "MOVED": Refusal(says="is a cluster", hint="emp needs one Redis with its replicas, not a cluster"),
    "BUSY": _BUSY,
    "UNKILLABLE": _BUSY,
}


def refusal_of(e: BaseException) -> Refusal | None:
    """What this error of redis-py says; None when it is no refusal, but that nobody answers."""
    match e:
        case NoPrimary() | NotConfirmed():
            return Refusal(says=e.says, hint=e.hint)
        case KeyDamaged():
            return Refusal(says=f"answers, but {e.words}", hint=REPAIR)
        case NotLoaded():
            return Refusal(
                says="lacks a script of emp's", hint="the reconciler loads it within seconds: look whether that runs"
            )
        case rexc.NoPermissionError():
            return _of_right(str(e))
        case rexc.AuthenticationError():
            return Refusal(
                says=f"refused the login: {e}",
                hint="check user and password in redis.url; what is special in them is percent-encoded (docs/redis.md)",
            )
        case rexc.MaxConnectionsError():
            return Refusal(says=f"is fine, but {e}", hint="this process is overloaded; try again")
        case rexc.BusyLoadingError():
            return Refusal(says="is still loading its data", hint="wait until it has; its log tells how far it is")
        case rexc.OutOfMemoryError():
            return Refusal(
                says="takes no writes, because its memory is full (maxmemory)",
                hint="raise maxmemory, or forget ended jobs: `emp jobs purge --older-than 1h`",
            )
        case _ if says_read_only(e):
            return Refusal(
                says="is a read-only replica",
                hint="let redis.url lead to the primary; after a failover behind one address emp finds it by itself",
            )
        case rexc.ConnectionError() if "max number of clients" in str(e):
            return _NO_ROOM
        case rexc.ResponseError() if not isinstance(e, rexc.ConnectionError):
            if found := _of_disk(str(e)):
                return found
            found = _BY_WORD.get(str(e).partition(" ")[0])
            return found or Refusal(says=f"refuses: {e}", hint="`emp doctor` looks at its memory and persistence")
        case _:
            return None


_NO_ROOM = Refusal(
    says="has no room for another connection (maxclients)",
    hint="raise maxclients, or end other clients; docs/redis.md says how many connections emp needs",
)


def _of_disk(said: str) -> Refusal | None:
    """With the reason, which Redis tells of its append-only file alone."""
    found = _DISK.match(said)
    if found is None:
        return None
    usual = _BY_WORD["MISCONF"]
    return Refusal(says=f"{usual.says}: {found[1]}", hint=usual.hint)


def _of_right(said: str) -> Refusal:
    if found := _COMMAND.search(said):
        what = f"run the command {found[1].upper()}"
    elif "channel" in said:
        what = "use a channel that emp needs"
    elif "key" in said:
        what = "use a key that emp needs"
    else:
        what = f"do that: {said}"
    return Refusal(says=f"does not let its user {what} (NOPERM)", hint="docs/redis.md lists the rights that emp needs")
