"""What a stop ended beyond programs: read from supervisord's log, told in bounds."""

from __future__ import annotations

from pathlib import Path

from emp_orch.fleet.drift.leftovers import Left, Process, told
from emp_orch.runtimes.process.supervisor_log import last_end, leftovers_since, log_end

NOON = "2026-11-29 12:00:00,001 INFO"
LOG = f"""\
{NOON} spawned: 'comfyui-gpu0' with pid 7
{NOON} left: 'comfyui-gpu0' with pid 7: 7 processes: python3 (123), sh (124), nginx: a, b (c) (9), y (2) and 3 more
{NOON} left: 'comfyui-gpu0' with pid 7: 1 process: late (130)
{NOON} stopped: comfyui-gpu0 (terminated by SIGTERM)
{NOON} left: 1 process: sleep (140)
"""


def test_the_log_tells_since_a_place(tmp_path: Path) -> None:
    log = tmp_path / "machine-a.log"
    log.write_text(LOG)
    begun = log_end(log)
    assert leftovers_since(log, begun) == []
    with log.open("a") as file:
        file.write(LOG)
    first, late, rest = leftovers_since(log, begun)
    assert (first.program, first.count, late.processes) == ("comfyui-gpu0", 7, (Process(name="late", pid=130),))
    assert [(p.name, p.pid) for p in first.processes[:3]] == [("python3", 123), ("sh", 124), ("nginx: a, b (c)", 9)]
    assert first.processes[-1] == Process(name="y", pid=2)
    assert (rest.program, rest.processes) == ("", (Process(name="sleep", pid=140),))


def test_a_log_that_was_rotated_meanwhile_tells_all(tmp_path: Path) -> None:
    log = tmp_path / "machine-a.log"
    log.write_text(LOG)
    begun = log_end(log)
    with log.open("a") as file:
        file.write(f"{NOON} left: 'a' with pid 7: 1 process: x (1)\n")
    log.rename(tmp_path / "machine-a.log.1")
    log.write_text(f"{NOON} left: 'b' with pid 8: 1 process: y (2)\n")
    assert [line.program for line in leftovers_since(log, begun)] == ["a", "b"]
    assert [line.program for line in leftovers_since(tmp_path / "none.log", log_end(tmp_path / "none.log"))] == []


def test_an_unasked_end_has_all_that_was_left(tmp_path: Path) -> None:
    log = tmp_path / "supervisord.log"
    log.write_text(
        LOG.replace("stopped: comfyui-gpu0 (", "exited: comfyui-gpu0 (").replace("SIGTERM)", "SIGKILL; not)")
    )
    end = last_end(log, "comfyui-gpu0")
    assert end is not None and end.left.endswith("and 3 more, late (130)") and end.signal == "SIGKILL"


def left(program: str, *names: str, count: int = 0, machine: str = "a") -> Left:
    processes = tuple(Process(name=name, pid=123 + n) for n, name in enumerate(names))
    return Left(machine=machine, program=program, count=count or len(names), processes=processes)


def test_it_is_told_in_bounds() -> None:
    assert told([]) == ""
    assert (
        told([left("comfyui-gpu0", "python3", "sh")])
        == "ended with it: python3 (pid 123), sh (pid 124), which comfyui-gpu0 had left behind"
    )
    assert (
        told([left("web", "a", "b", "c", "d", count=9), left("", "sleep", machine="b")], machines=True)
        == "ended with it: a (pid 123), b (pid 124), c (pid 125) and 6 more, which web on a had left behind; "
        "sleep (pid 123), which a program that is gone on b had left behind"
    )
    assert told([left(f"p{n}", "x") for n in range(8)]).endswith("; 3 more of 3 others")
