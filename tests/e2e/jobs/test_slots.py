"""A slot's trouble stays the slot's: services that cannot start, hang, or are at something that ignores an interrupt.

All of it is begun at once, on one fleet; the tests then look at one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from emp_orch.procident import ProcessIdentity
from support.stack.slots import Slots, same
from support.stack.stack import until


@dataclass(frozen=True, kw_only=True)
class Begun:
    slots: Slots
    # On the slot beside one that cannot start.
    long_job: str
    its_service: ProcessIdentity
    # What ignores its interrupt: one that is too slow, one that is cancelled; three good ones behind each.
    slow: str
    cancelled: str
    good: tuple[str, ...]
    stuck_services: tuple[ProcessIdentity, ProcessIdentity]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    slots = Slots(tmp_path_factory.mktemp("slots"))
    stack = slots.stack
    try:
        long_job = slots.submit("comfy", 0, "TestSleep", seconds=25.0, interruptible=True)
        slow = slots.submit("quick", 0, "TestSleep", seconds=300.0, interruptible=False)
        cancelled = slots.submit("quick", 1, "TestSleep", seconds=300.0, interruptible=False)
        slots.until_job(long_job, "in_progress")
        slots.until_job(cancelled, "in_progress")
        its_service = slots.service("comfy", 0)
        stuck = (slots.service("quick", 0), slots.service("quick", 1))
        stack.ok("cancel", cancelled)
        good = [
            slots.submit("quick", slot, "TestSleep", seconds=0.1, interruptible=True)
            for slot in (0, 1)
            for _ in range(3)
        ]
        slots.break_("steady", "broken-1", "comfy-gpu1")
        slots.break_("steady", "typo", "exporter")
        yield Begun(
            slots=slots,
            long_job=long_job,
            its_service=its_service,
            slow=slow,
            cancelled=cancelled,
            good=tuple(good),
            stuck_services=stuck,
        )
    finally:
        stack.run("down")
        left = stack.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def test_a_run_that_ignores_its_interrupt_keeps_no_other_job(begun: Begun) -> None:
    slots = begun.slots
    worker = "hasty-worker-0 quick"
    key = f"service-stuck/hasty/{worker}"
    found = until("told", lambda: [e for e in slots.journal("drift_opened") if e["data"]["key"] == key])
    assert f"of job {begun.slow}, which ignores an interrupt" in found[0]["data"]["cause"]
    ends = [slots.until_job(job, "completed") for job in begun.good]
    assert [(e["attempts"], e["status"]) for e in ends] == [(1, "completed")] * 6
    slow = slots.until_job(begun.slow, "timeout")
    told = " ".join(str(h.get("reason", "")) for h in slow["history"])
    assert "it ran longer than 2 s, and its run" in told and "ignores the interrupt" in told
    cancelled = slots.until_job(begun.cancelled, "cancelled")
    assert "ignores the interrupt" in " ".join(str(h.get("reason", "")) for h in cancelled["history"])
    assert not any(same(was, slots.service("quick", slot)) for slot, was in enumerate(begun.stuck_services))
    assert {"restart-program/hasty/quick-gpu0", "restart-program/hasty/quick-gpu1"} <= set(slots.begun("hasty"))
    assert "restart-machine/hasty" not in slots.begun("hasty"), json.dumps(slots.journal(), indent=1)
    assert "restart program hasty quick-gpu0" in slots.text("explain", key)


def test_somebody_elses_prompt_is_waited_for(begun: Begun) -> None:
    slots, service = begun.slots, begun.slots.service("quick", 0)
    workflow = {"1": {"class_type": "TestSleep", "inputs": {"seconds": 8.0, "interruptible": True}}}
    foreign = slots.ask("quick", 0, "prompt", {"prompt": workflow, "client_id": "browser"})["prompt_id"]
    job = slots.submit("quick", 0, "TestSleep", seconds=0.1, interruptible=True)
    words = f"a prompt that emp did not send ({foreign})"
    until("explained", lambda: words in slots.text("jobs", "explain", job), within_s=8)
    assert words in slots.text("status")
    queue = slots.ask("quick", 0, "queue")
    assert [row[1] for row in queue["queue_running"]] == [foreign] and queue["queue_pending"] == []
    assert slots.until_job(job, "completed")["attempts"] == 1
    assert foreign in slots.ask("quick", 0, f"history/{foreign}")
    assert same(service, slots.service("quick", 0))


def test_a_slot_that_cannot_start_is_left_to_a_person_and_the_other_works_on(begun: Begun) -> None:
    slots, stack = begun.slots, begun.slots.stack
    found = slots.until_drift("program-fatal", "comfy-gpu1", "quarantine")
    assert "exited with status 3" in found["drift"]["cause"] and "no such checkpoint" in found["drift"]["cause"]
    assert "`emp restart steady comfy-gpu1` tries again" in found["held"]
    helper = slots.until_drift("program-fatal", "exporter", "quarantine")
    assert "nvidia_smi_exporter" in helper["drift"]["cause"]
    for text in (slots.text("diff"), slots.text("explain", "program-fatal/steady/comfy-gpu1"), slots.text("status")):
        assert "needs a person" in text and "no such checkpoint" in text
    state = slots.text("status")
    assert "comfy error" in state  # its worker takes no jobs for it
    done = slots.until_job(begun.long_job, "completed")
    assert done["attempts"] == 1 and same(begun.its_service, slots.service("comfy", 0))
    assert not [o for o in slots.begun("steady") if o.startswith("restart-machine")]
    # Put right, a person's word sets each free.
    slots.mend("steady", "broken-1")
    slots.mend("steady", "typo")
    assert stack.ok("restart", "steady", "comfy-gpu1") and stack.ok("restart", "steady", "exporter")
    stack.until_in_sync()
    assert slots.until_job(slots.submit("comfy", 1, "TestSleep", seconds=0.1, interruptible=True), "completed")


def test_a_job_says_that_its_service_was_restarted_and_why(begun: Begun) -> None:
    slots = begun.slots
    job = slots.submit("comfy", 1, "TestSleep", seconds=10.0, interruptible=True)
    slots.until_job(job, "in_progress")
    slots.stack.ok("restart", "steady", "comfy-gpu1")
    ended = slots.until_job(job, "completed")
    told = " ".join(str(h.get("reason", "")) for h in ended["history"])
    assert "emp restarted comfy-gpu1 during this job: asked by cli" in told and ended["attempts"] == 1


def test_a_service_that_holds_still_is_not_restarted_under_its_job(begun: Begun) -> None:
    slots, service = begun.slots, begun.slots.service("comfy", 0)
    job = slots.submit("comfy", 0, "TestHold", seconds=6.0)
    held = slots.until_drift("program-unhealthy", "comfy-gpu0", "busy")
    assert held["held"] == f"steady-worker-0 is at job {job} on it"
    assert "is at job" in slots.text("explain", "program-unhealthy/steady/comfy-gpu0")
    assert slots.until_job(job, "completed")["attempts"] == 1
    slots.stack.until_in_sync()
    assert same(service, slots.service("comfy", 0))
