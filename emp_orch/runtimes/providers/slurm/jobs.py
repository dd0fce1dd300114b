"""Jobs as squeue lists them, of every version that has --json, and of those that have none.

A job is a box by its name, emp.FLEET.MEMBER: no name of a fleet or a member has a dot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.fleet.model.fleet import MachineId, PoolName
from emp_orch.fleet.model.pools import MAX_WORDS, Box, BoxState
from emp_orch.plaintext import one_line
from emp_orch.runtimes.providers.base import ProviderError

LIST_JSON = ("squeue", "--json", "--me", "--states=all")
LIST_TEXT = ("squeue", "--noheader", "--me", "--states=all", "-o", "%i|%U|%j|%T|%N|%r")

_PENDING = frozenset(
    ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"]
)
_RUNNING = frozenset(["RUNNING", "COMPLETING", "SUSPENDED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"])
_ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
# Slurm's own words for why a job waits, as a person reads them.
_REASONS = {
    "Resources": "no node has what it asks for free",
    "Priority": "jobs of higher priority wait before it",
    "BeginTime": "Slurm lets it begin a little later, as after a requeue",
    "Dependency": "the former job of this member has not ended",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs",
    "PartitionTimeLimit": "the option time is more than the partition allows",
    "PartitionNodeLimit": "the partition has no such node up",
    "JobHeldUser": "held by its user",
    "JobHeldAdmin": "held by an administrator",
    "QOSMaxGRESPerUser": "the QOS gives one user no more GPUs",
    "QOSMaxJobsPerUserLimit": "the QOS gives one user no more jobs",
    "AssocGrpGRES": "the account has no more GPUs",
    "AssocMaxJobsLimit": "the account has no more jobs",
}


class Job(Struct, frozen=True, kw_only=True):
    job_id: int
    name: str
    state: BoxState
    words: str
    node: str


def name_of(fleet: str, member_id: MachineId) -> str:
    return f"emp.{fleet}.{member_id}"


def member_of(name: str, fleet: str, pool: PoolName) -> MachineId | None:
    """The member whose job has this name; None for any other job."""
    member = name.removeprefix(f"emp.{fleet}.")
    head, _, own = member.rpartition("-")
    return MachineId(member) if member != name and head == pool and own.isascii() and own.isalnum() else None


def in_json(said: bytes, uid: int) -> tuple[Job, ...]:
    """The jobs of one user. Raises ProviderError for what is no answer of squeue; passes over jobs that are none."""
    try:
        listed = msgspec.json.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ProviderError(f"`squeue --json` answered with what is no JSON: {e}") from e
    # Without slurmctld it exits 0 with no jobs, and says so here: taken for a list, every box would be gone.
    errors = listed.get("errors") if isinstance(listed, dict) else None
    if errors:
        told = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
        words = "; ".join(w for e in told[:3] for name in ("source", "description", "error") if (w := _text(e, name)))
        raise ProviderError(
            f"`squeue --json` failed: {words[:MAX_WORDS] or 'it names errors'}",
            hint="`scontrol ping` says whether slurmctld is there",
        )
    jobs = listed.get("jobs") if isinstance(listed, dict) else None
    if not isinstance(jobs, list):
        raise ProviderError("`squeue --json` answered without a list of jobs")
    return tuple(_jobs(jobs, uid))


def in_text(said: bytes, uid: int) -> tuple[Job, ...]:
    """As `in_json`, of lines as LIST_TEXT asks for them."""
    rows = (line.split("|", 5) for line in said.decode(errors="replace").splitlines())
    keys = ("job_id", "user_id", "name", "job_state", "nodes", "state_reason")
    named = [dict(zip(keys, row, strict=True)) for row in rows if len(row) == 6 and row[0].isdecimal()]
    return tuple(_jobs([{**r, "job_id": int(r["job_id"]), "user_id": _int(r["user_id"])} for r in named], uid))


def boxes_of(jobs: tuple[Job, ...], fleet: str, pool: PoolName) -> tuple[Box, ...]:
    """One box a member: of several jobs the one that lives, else the newest."""
    best: dict[MachineId, Job] = {}
    for job in sorted(jobs, key=lambda j: (j.state is not BoxState.ENDED, j.state is BoxState.RUNNING, j.job_id)):
        if (member := member_of(job.name, fleet, pool)) is not None:
            best[member] = job
    return tuple(
        Box(member_id=member, state=job.state, ref=f"job {job.job_id}", words=job.words, node=job.node)
        for member, job in best.items()
    )


def _jobs(listed: list[Any], uid: int) -> Iterator[Job]:
    for raw in listed:
        if not isinstance(raw, dict) or raw.get("user_id") != uid or not isinstance(raw.get("job_id"), int):
            continue
        given = raw.get("job_state")
        states = [str(s) for s in given] if isinstance(given, list) else [str(given)]
        reason, more = _text(raw, "state_reason"), _text(raw, "state_description")
        state = _state(states)
        yield Job(
            job_id=raw["job_id"],
            name=_text(raw, "name"),
            state=state,
            words=_words(state, states, reason, more),
            node=_text(raw, "nodes"),
        )


def _state(states: list[str]) -> BoxState:
    if "COMPLETING" in states:
        return BoxState.RUNNING
    if not _PENDING.isdisjoint(states):
        return BoxState.PENDING
    if not _RUNNING.isdisjoint(states):
        return BoxState.RUNNING
    return BoxState.UNKNOWN if _ENDED.isdisjoint(states) else BoxState.ENDED


def _words(state: BoxState, states: list[str], reason: str, more: str) -> str:
    reason = "" if reason in ("None", "(null)") else reason
    if state is BoxState.PENDING:
        head = reason.partition(",")[0].strip("()")
        plain = _REASONS.get(head, "")
        text = f"{plain} ({reason})" if plain else reason
    else:
        text = "" if states == ["RUNNING"] else " ".join([*states, f"({reason})"] if reason else states)
    return one_line(f"{text}: {more}" if more else text)[:MAX_WORDS]


def _text(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name)
    return one_line(value)[:MAX_WORDS] if isinstance(value, str) else ""


def _int(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else -1
