"""One box at a time is a machine: a second one that comes with the same token is told where the first is.

A box says who it is by an identity of its folder (machine/boot/join), and its report repeats that. One of an older emp
says nothing of the kind: it is let in, and nobody is refused on its account.
"""

from __future__ import annotations

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import SeenMachine
from emp_orch.plaintext import one_line
from emp_orch.store.acl.joining import Asking
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import read_some
from emp_orch.web.errors import Refused

MAX_SHOWN = 100
# A box whose one before is thought to live comes again after so long, until that counts as gone.
AGAIN_S = 2
# Of those that it let in longest ago a process forgets, beyond this: their reports tell by then.
MAX_LET_IN = 20_000


class Boxes:
    """Who was let in last as which machine: the first report comes only later. Times are seconds of a clock that only
    rises."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Asking, float]] = {}

    def let_in(self, machine_id: str, asking: Asking, now_s: float) -> None:
        if asking.box:
            self._last.pop(machine_id, None)
            self._last[machine_id] = (asking, now_s)
            if len(self._last) > MAX_LET_IN:
                del self._last[next(iter(self._last))]

    def put_out(self, machine_id: str, asking: Asking) -> None:
        """It was not let in after all."""
        if machine_id in self._last and self._last[machine_id][0] == asking:
            del self._last[machine_id]

    def other(self, machine_id: str, asking: Asking, now_s: float, within_s: float) -> str:
        """Another box that was let in less than `within_s` ago, in words; empty when there is none."""
        last, at_s = self._last.get(machine_id, (asking, now_s))
        if last.box == asking.box or now_s - at_s >= within_s:
            return ""
        return f"{_shown(last.host)}, let in {now_s - at_s:.0f} s ago"


async def living(r: Client, keys: Keys, machine_id: str, within_s: float) -> tuple[SeenMachine, float] | None:
    """The machine's report and its age in seconds, unless that is more than `within_s` old."""
    seconds, micros = await r.time()
    now_ms = seconds * 1000 + micros // 1000
    seen = (await read_some(r, keys, now_ms, [machine_id], [])).machines.get(MachineId(machine_id))
    age_s = max(0, now_ms - seen.seen_ms) / 1000 if seen else within_s
    return (seen, age_s) if seen is not None and age_s < within_s else None


def refuse_second(
    machine_id: str,
    asking: Asking,
    heard: tuple[SeenMachine, float] | None,
    let_in: str,
    stale_after_s: float,
    *,
    pool: str = "",
    by_engine: bool = False,
) -> None:
    """Raise Refused (409) where another box than `asking` is the machine: by its report that was `heard` lately, else
    because it was `let_in` a moment ago. `pool`: whose member it is. `by_engine`: its engine started the box where the
    one before is gone, if without a word: it is to come again (429).
    """
    if not asking.box:
        return
    other = let_in
    if heard is not None:
        report, age_s = heard[0].report, heard[1]
        if report.box in ("", asking.box):
            return
        other = f"{_shown(report.host)}, boot {_shown(report.boot_id)}, heard {age_s:.0f} s ago"
    if other and by_engine:
        words = f"{machine_id} was another box until lately: {other}; it is let in {stale_after_s:g} s after that"
        raise Refused(429, words, headers={"Retry-After": str(AGAIN_S)})
    if other:
        raise Refused(
            409,
            f"{machine_id} is joined by another box: {other}; stop that one, or "
            + ("give each its own name (--as)" if pool else "take another machine's line (`emp machine join`)"),
            hint=f"where it is gone with its folder, the next is let in {stale_after_s:g} s after its last word",
        )


def _shown(text: str) -> str:
    return one_line(text)[:MAX_SHOWN] or "unknown"
