"""What stands in the environments of a fleet's processes: what their roles need, what emp.yaml gives, nothing else.

Read from /proc/*/environ of all of them, whoever began them, and again after each way in which one begins anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from emp_orch import marks
from support.stack.stack import Stack, until

# In the shell of the apply; nobody in the fleet is to have them. The second and third have telling names.
CANARIES = {
    "CANARY_SECRET": "canary-of-the-shell",
    "AWS_SECRET_ACCESS_KEY": "canary-of-a-cloud",
    "NVIDIA_API_KEY": "canary-beside-the-driver",
    "EMP_OTHER": "canary-with-a-name-like-ours",
}
# By these the reconciler reaches Docker hosts; programs have no use for them.
WAYS = {"SSH_AUTH_SOCK": "/nonexistent/agent-of-the-shell", "DOCKER_CONFIG": "/nonexistent/docker-of-the-shell"}
ROLE = {"TZ": "Europe/Vienna", "LC_TIME": "C.UTF-8", "NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "3"}
TOKEN, MODELS, OF_B = "token-of-one-service", "/models-of-one-service", "of-all-on-machine-b"
GIVEN = {"TOKEN": TOKEN, "HF_HOME": MODELS, "ON_B": OF_B}
UNTIL_ENDED = ["sh", "-c", "sleep 100000 & wait"]
A, B = "a", "b"
WORKER = "redis-worker-gpu0"
NOBODY: set[tuple[str, str]] = set()


def config(stack: Stack) -> dict[str, object]:
    found = yaml.safe_load(stack.file.read_text())
    found["services"] = {
        "names": {"scale": "per_machine", "command": UNTIL_ENDED, "env": {"TOKEN": {"env": "TOKEN"}}},
        "asks": {
            "scale": "per_machine",
            "command": UNTIL_ENDED,
            "inherit": ["HF_HOME", "NOT_SET_ANYWHERE"],
            "install": {"command": ["sh", "-c", "env > installed"], "creates": "installed"},
            "health": {"command": ["sh", "-c", "env > checked.new; mv checked.new checked"]},
        },
        "plain": {"scale": "per_machine", "command": UNTIL_ENDED},
    }
    found["machines"] = {
        A: {"num_gpus": 1, "services": ["names", "asks", "plain"]},
        B: {"num_gpus": 1, "services": ["plain"], "inherit": ["ON_B"]},
    }
    return dict(found)


class Lab:
    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder)
        self.write(config(self.stack))

    def write(self, document: dict[str, object]) -> None:
        self.stack.file.write_text(yaml.safe_dump(document, sort_keys=False))

    def emp(self, *args: str, shell: dict[str, str]) -> str:
        """`emp ARGS…` in a shell that has `shell` and what this one needs to work."""
        clean = {k: v for k, v in os.environ.items() if k not in {**GIVEN, **CANARIES, **WAYS, **ROLE}}
        done = subprocess.run(
            self.stack.argv(*args),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=180,
            env={**clean, **shell},
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.stack.log_ends()}"
        return done.stdout + done.stderr

    def environs(self) -> dict[tuple[str, str], bytes]:
        """The environments of all processes of the fleet, by machine and program, one behind the other."""
        place = marks.of_folder(self.stack.root).place
        own = [one for one in marks.marked() if one.mark.place == place]
        found: dict[tuple[str, str], bytes] = {}
        for who in marks.with_descendants(own):
            owner = marks.owner_of(who.pid)
            if owner is not None:
                key = owner.mark.machine, owner.mark.program
                found[key] = found.get(key, b"") + marks.environ_of(who.pid) + b"\n"
        return found

    def holders(self, value: str) -> set[tuple[str, str]]:
        return {key for key, environ in self.environs().items() if value.encode() in environ}

    def assert_each_has_its_own(self) -> None:
        self.stack.until_in_sync()
        running = set(self.environs())
        wanted = {("", p) for p in ("supervisord", "redis", "api", "reconcile", "monitor", "eventlog")}
        wanted |= {(m, p) for m in (A, B) for p in ("supervisord", "agent", "plain", WORKER)}
        wanted |= {(A, "names"), (A, "asks")}
        assert running == wanted
        for name, value in CANARIES.items():
            assert self.holders(value) == NOBODY, name
        for name, value in WAYS.items():
            assert self.holders(value) <= {("", "supervisord"), ("", "reconcile")}, name
        assert self.holders(TOKEN) == {(A, "names")}
        assert self.holders(MODELS) == {(A, "asks")}
        assert self.holders(OF_B) == {(B, "plain"), (B, WORKER)}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.stack.run("down")
    assert made.stack.leftovers() == []


def test_a_shells_secrets_reach_nobody(lab: Lab) -> None:
    said = lab.emp("apply", "-y", "--timeout", "120", shell={**CANARIES, **WAYS, **ROLE, **GIVEN})
    assert "NOT_SET_ANYWHERE" in said
    lab.assert_each_has_its_own()
    for name, value in ROLE.items():
        assert {(A, "plain"), (A, WORKER), (B, "plain")} <= lab.holders(f"{name}={value}"), name
    for name in ("supervisord", "reconcile"):
        assert all(f"{k}={v}".encode() in lab.environs()["", name] for k, v in WAYS.items())

    machine = lab.stack.layout.machine(A)
    for file in ("installed", "checked"):
        path = until(file, lambda file=file: next((p for p in [machine / file] if p.exists()), None))  # type: ignore[misc]
        written = path.read_text()
        assert f"HF_HOME={MODELS}" in written and TOKEN not in written
        assert not any(value in written for value in (*CANARIES.values(), *WAYS.values()))

    # Nothing of a value is in what others may read.
    assert TOKEN not in lab.stack.log_ends(lines=10_000)
    for path in lab.stack.root.rglob("*"):
        if path.is_file() and not path.is_relative_to(lab.stack.layout.redis) and path.stat().st_mode & 0o077:
            held = path.read_bytes()
            assert not any(v.encode() in held for v in (TOKEN, OF_B, *CANARIES.values())), path


def test_it_stays_so_whatever_begins_anew(lab: Lab) -> None:
    lab.emp("apply", "-y", "--timeout", "120", shell={**CANARIES, **WAYS, **GIVEN})

    for program in ("names", "asks"):
        before = lab.stack.program(program, A)
        os.kill(before.pid, signal.SIGKILL)
        until(f"{program} anew", lambda p=program, b=before: lab.stack.program(p, A) != b)  # type: ignore[misc]
    lab.assert_each_has_its_own()

    before = lab.stack.program("supervisord", A)
    os.kill(before.pid, signal.SIGKILL)
    until("the reconciler restarts the machine", lambda: lab.stack.program("supervisord", A) != before)
    lab.assert_each_has_its_own()

    before = lab.stack.control("reconcile")
    os.kill(before.pid, signal.SIGKILL)
    until("another reconciler", lambda: lab.stack.control("reconcile") != before)
    lab.assert_each_has_its_own()

    # In another shell, that has none of it: what was applied holds.
    lab.emp("down", shell=CANARIES)
    lab.emp("start", "--timeout", "120", shell=CANARIES)
    lab.assert_each_has_its_own()


def test_a_program_that_misses_one_is_told_how_it_gets_it(lab: Lab) -> None:
    document = config(lab.stack)
    ends = ["sh", "-c", "python3 -c 'import os; os.environ[\"HF_TOKEN\"]'"]
    document["services"] = {"misses": {"scale": "per_machine", "command": ends}}
    document["machines"] = {A: {"num_gpus": 1, "services": ["misses"]}}
    lab.write(document)
    with pytest.raises(AssertionError) as e:
        lab.emp("apply", "-y", "--timeout", "8", shell={"HF_TOKEN": "token-of-the-shell"})
    said = str(e.value)
    assert "KeyError: 'HF_TOKEN'" in said and "token-of-the-shell" not in said
    assert "HF_TOKEN is set here, and does not reach it by itself: it gets it by inherit: [HF_TOKEN]" in said


def test_the_plan_shows_who_inherits_what(lab: Lab) -> None:
    lab.emp("apply", "-y", "--timeout", "120", shell=GIVEN)
    kept = lab.stack.program("names", A), lab.stack.program("plain", B)
    before = lab.stack.program("plain", A)

    document = config(lab.stack)
    document["services"]["plain"]["inherit"] = ["ON_B"]  # type: ignore[index]
    lab.write(document)
    said = lab.emp("apply", "-y", "--timeout", "120", shell=GIVEN)
    assert "plain inherits ON_B" in said and OF_B not in said, said
    lab.stack.until_in_sync()
    assert lab.holders(OF_B) == {(A, "plain"), (B, "plain"), (B, WORKER)}
    # Who has it already, and who never asked, run on.
    assert (lab.stack.program("names", A), lab.stack.program("plain", B)) == kept
    assert lab.stack.program("plain", A) != before

    # Another value, and then none: told, and programs that start anew go by it.
    said = lab.emp("apply", "-y", "--timeout", "120", shell={**GIVEN, "ON_B": "another-for-b"})
    assert "env:ON_B" in said and "another-for-b" not in said, said
    bare = {name: value for name, value in GIVEN.items() if name != "ON_B"}
    said = lab.emp("apply", "-y", "--timeout", "120", shell=bare)
    assert "ON_B is not set" in said and "emp.yaml:" in said, said
