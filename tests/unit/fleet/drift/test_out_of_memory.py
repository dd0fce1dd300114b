"""What the kernel counts of a cgroup that ran out of memory, and how that is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.fleet.drift.container_state import in_short, is_looping, looping, told
from emp_orch.fleet.drift.exits import how, how_in_short
from emp_orch.fleet.drift.exits import told as end_told
from emp_orch.fleet.model.observed import ContainerEnd, ContainerState, OutOfMemory, ProgramEnd
from emp_orch.host.cgroup import own_memory
from emp_orch.machine.observe.out_of_memory import LATELY_S, OutOfMemoryWatch
from emp_orch.units import show_bytes

V1 = {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n", "memory.limit_in_bytes": "536870912\n"}
V2 = {"memory.events": "low 0\noom 3\noom_kill {}\noom_group_kill 0\n", "memory.max": "536870912\n"}


@pytest.mark.parametrize(
    ("membership", "place", "files"),
    [
        ("0::/system.slice/emp.service\n", "system.slice/emp.service", V2),
        ("0::/\n", "", V2),  # in a container
        ("9:name=systemd:/\n4:cpu,memory:/box\n0::/\n", "memory/box", V1),
        ("4:memory:/docker/0123\n", "memory", V1),  # in a container, which sees its own as the root
    ],
)
def test_kills_are_counted_where_the_kernel_counts_them(
    tmp_path: Path, membership: str, place: str, files: dict[str, str]
) -> None:
    (tmp_path / "self").write_text(membership)
    folder = tmp_path / "fs" / place
    folder.mkdir(parents=True)

    def killed(times: int) -> None:
        for name, text in files.items():
            (folder / name).write_text(text.format(times))

    killed(1)
    cgroup = own_memory(tmp_path / "fs", tmp_path / "self")
    assert (cgroup.kills(), cgroup.limit(), cgroup.most_used()) == (1, 2**29, 0)
    now = 100.0
    watch = OutOfMemoryWatch(cgroup, inside=True, clock=lambda: now)
    assert watch.lately() is None  # that was before
    killed(2)
    assert watch.lately() == OutOfMemory(limit=2**29, inside=True)
    now += LATELY_S + 1
    assert watch.lately() is None


def test_without_a_cgroup_nobody_knows(tmp_path: Path) -> None:
    cgroup = own_memory(tmp_path, tmp_path / "none")
    assert (cgroup.kills(), cgroup.limit(), cgroup.most_used()) == (None, 0, 0)
    assert OutOfMemoryWatch(cgroup).lately() is None


KILLED = ProgramEnd(at_ms=1, signal="SIGKILL", memory=OutOfMemory(limit=2**30, used=2**30, inside=True))


def test_a_program_that_was_killed_for_memory_says_which_limit() -> None:
    assert how(KILLED) == "was ended by SIGKILL (out of memory: limits.memory is 1 GiB, and it used 1 GiB)"
    assert how_in_short(KILLED) == "out of memory"
    host = ProgramEnd(at_ms=1, exit_status=1, memory=OutOfMemory(used=3 * 2**29))
    assert end_told(host) == (
        "exited with status 1; it said nothing; the kernel had killed a process of this machine: "
        "out of memory: its host had no more, of which this machine used 1.5 GiB at most"
    )
    assert how(ProgramEnd(at_ms=1, signal="SIGKILL")) == "was ended by SIGKILL (somebody killed it, or memory ran out)"


@pytest.mark.parametrize(("count", "shown"), [(0, "0 KiB"), (2**20, "1 MiB"), (3 * 2**29, "1.5 GiB"), (2**40, "1 TiB")])
def test_sizes_are_shown_as_people_say_them(count: int, shown: str) -> None:
    assert show_bytes(count) == shown


def state(word: str, *ends: tuple[int, int], **said: object) -> ContainerState:
    made = tuple(ContainerEnd(at_ms=at, exit_code=code) for at, code in ends)
    return ContainerState(name="c", word=word, ends=made, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "loops"),
    [
        (state("running"), False),
        (state("running", (1, 1), (2, 1)), False),
        (state("running", (1, 1), (2, 1), (3, 1)), True),
        (state("running", (1, 1), (200_000, 1), (400_000, 1)), False),  # once in a while
        (state("restarting", (1, 1), restarts=1), False),
        (state("restarting", (1, 1), restarts=9), True),  # the engine has forgotten the others
        (state("exited", (1, 1), (2, 1), (3, 1)), False),  # nobody starts it
    ],
)
def test_a_loop_is_told_from_an_accident(found: ContainerState, loops: bool) -> None:
    assert is_looping(found) is loops


@pytest.mark.parametrize(
    ("found", "short", "text"),
    [
        (state("running"), "running", ""),
        (state("dead"), "dead", "its container c is dead"),
        (state("created", error="port is taken"), "created", "its container c is created: port is taken"),
        (
            state("exited", (9, 137), lived_ms=2_000, lines=("a", "b")),
            "exited (exit 137)",
            "its container c ended with exit 137 (SIGKILL: somebody killed it, or memory ran out), "
            "2.0 s after its start; last words: b",
        ),
        (
            state("exited", (9, 137), out_of_memory=True),
            "exited (out of memory)",
            "its container c ran out of memory (it has no limits.memory: its host had no more; exit 137)"
            "; it said nothing",
        ),
        (
            state("restarting", (9, 128), error="exec: no such file"),
            "restarting (exit 128)",
            "its container c could not be started: exec: no such file; its engine starts it again; it said nothing",
        ),
    ],
)
def test_an_engine_in_words(found: ContainerState, short: str, text: str) -> None:
    assert (in_short(found), told(found)) == (short, text)


def test_a_loop_in_words() -> None:
    assert looping(state("restarting", (9, 1), restarts=9)) == (
        "its container c ended by itself 9 times: it ended with exit 1; it said nothing"
    )
