"""The queue's scripts for one prefix, sent by their digest.

Every change of a job is one script, so that no crash can leave half of it. Key names are written into the text of the
scripts (one text per prefix), for they are many and most are computed. So no script takes KEYS, and the queue needs one
Redis, not a cluster.

Where a job is:
- every job is in `jobs`: `1 if its payload is kept apart, else 0|seq|priority|lane|created ms|`, then its document
  as JSON;
- it waits: in `lane:{sig}`;
- a worker holds it: in `leases`, and in `jobs:begun` once its run has begun;
- it ended: in `jobs:in:{status}`.
`job:{id}` says what changed since it was submitted. What it gave as secrets stands in `secrets:{id}` until it ends.

Workers that are equal in all that any lane asks are a class. A claim looks at the best entries of `heads:{class}`,
however many lanes and jobs there are beside (lua/shared/lanes.lua). An entry of a job that was taken is put right when
it matters. How workers wait and are woken: lua/shared/wakes.lua.
"""

from __future__ import annotations

from emp_orch.store.queue.limits import limits
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script
from emp_orch.store.redis.scripts import Call, Script

NAMES = (
    *("submit/submit", "submit/submit_one", "submit/cancel", "submit/retry"),
    *("claim/next", "claim/next_after_waiting", "claim/unclaim", "claim/adopt", "claim/leave"),
    *("run/renew", "run/progress", "run/began", "run/secrets_of", "run/end", "run/ran", "run/cooled", "run/lacks"),
    *("lanes/new_lanes", "lanes/register", "lanes/retire", "lanes/judge"),
    *("upkeep/sweep", "upkeep/forget", "upkeep/trim"),
    *("positions/places", "positions/without_record", "positions/match_anew"),
    *("positions/strays", "positions/put_back"),
)


def all_texts(keys: Keys) -> dict[str, str]:
    """Each of them by name."""
    given = limits()
    return {name: script(f"queue/{name}", keys, given) for name in NAMES}


class Scripts:
    """All of them."""

    def __init__(self, r: Client, keys: Keys, call: Call | None = None, sure: Call | None = None) -> None:
        """`sure` sends what must not be lost: submissions and ends."""
        send: Call = call or r.execute_command
        sure = sure or send
        texts = all_texts(keys)
        self.submit = Script(sure, texts["submit/submit"])
        self.submit_one = Script(sure, texts["submit/submit_one"])
        self.next = Script(send, texts["claim/next"])
        self.next_after_waiting = Script(send, texts["claim/next_after_waiting"])
        self.unclaim = Script(send, texts["claim/unclaim"])
        self.new_lanes = Script(send, texts["lanes/new_lanes"])
        self.register = Script(send, texts["lanes/register"])
        self.retire = Script(send, texts["lanes/retire"])
        self.renew = Script(send, texts["run/renew"])
        self.progress = Script(send, texts["run/progress"])
        self.began = Script(send, texts["run/began"])
        self.secrets_of = Script(send, texts["run/secrets_of"])
        self.end = Script(sure, texts["run/end"])
        self.ran = Script(send, texts["run/ran"])
        self.cooled = Script(send, texts["run/cooled"])
        self.lacks = Script(send, texts["run/lacks"])
        self.adopt = Script(send, texts["claim/adopt"])
        self.cancel = Script(send, texts["submit/cancel"])
        self.retry = Script(send, texts["submit/retry"])
        self.leave = Script(send, texts["claim/leave"])
        self.sweep = Script(send, texts["upkeep/sweep"])
        self.judge = Script(send, texts["lanes/judge"])
        self.forget = Script(send, texts["upkeep/forget"])
        self.trim = Script(send, texts["upkeep/trim"])
        self.places = Script(send, texts["positions/places"])
        self.without_record = Script(send, texts["positions/without_record"])
        self.match_anew = Script(send, texts["positions/match_anew"])
        self.strays = Script(send, texts["positions/strays"])
        self.put_back = Script(send, texts["positions/put_back"])
