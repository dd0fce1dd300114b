"""Every name that a command prints is one that every command which takes a name understands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import aiohttp
import pytest
from click.testing import CliRunner, Result

from emp_orch.cli.main import cli
from emp_orch.cli.output.names import known_names
from emp_orch.control.logs.files import CONTROL
from emp_orch.fleet.names import Name, Names
from emp_orch.runtimes.process.supervisor import Supervisor
from support.stack.stack import MACHINE, Stack, until

PRINTING = (
    *(("status",), ("status", "-a"), ("diff",), ("diff", "--json"), ("explain",), ("explain", "--json"), ("doctor",)),
    *(("logs", "-n", "60"), ("logs", "--list"), ("events",), ("events", "--json"), ("journal",), ("journal", "--json")),
    *(("top", "-1", "-i", "0.2"), ("top", "-1", "-i", "0.2", "--json"), ("jobs",), ("jobs", "--json")),
)
# What is a path, an address or a file's name is not called by it.
TOKEN = re.compile(r"(?<![\w./:-])[a-z0-9][\w./-]*\w")


def emp(stack: Stack, *words: str) -> Result:
    """`emp WORDS…` in this process."""
    return CliRunner().invoke(cli, ["-C", str(stack.root), *words], catch_exceptions=True)


def said(done: Result) -> str:
    return f"exit {done.exit_code}: {done.output} {done.exception!r}"


def printed(stack: Stack, programs: Sequence[str]) -> set[str]:
    """The names in what the printing commands say, with a difference there to tell."""
    found: set[str] = set()
    for words in PRINTING:
        done = emp(stack, *words)
        for token in TOKEN.findall(done.output):
            if token.endswith((".log", ".yaml", ".json")) or token.count("/") > 2:
                continue
            if MACHINE in token or token in programs:
                found.add(token)
    return found


@pytest.fixture(scope="module")
def names(stack: Stack) -> Names:
    found = known_names(stack.layout)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def called(stack: Stack, names: Names) -> dict[str, Name]:
    """Every name that was printed, and what it means."""
    programs = sorted({n.partition("/")[2] for n in names.all() if "/" in n})
    supervisor = Supervisor(stack.layout.machine(MACHINE))
    stack.ok("submit", "simulation", "--payload", "{}", "--wait")
    assert emp(stack, "pause").exit_code == 0
    try:
        asyncio.run(supervisor.call("stopProcess", "comfyui-gpu1", True))
        until("a difference", lambda: stack.diff()[1]["drift"])
        found = printed(stack, programs)
    finally:
        assert emp(stack, "resume").exit_code == 0
    stack.until_in_sync()
    return {token: names.find([token]) for token in found}


def test_they_are_of_every_form(called: dict[str, Name]) -> None:
    for token in (
        *(MACHINE, f"machine-{MACHINE}", f"machine-{MACHINE}/comfyui-gpu0", "comfyui-gpu1"),
        *(f"{MACHINE}-worker-0", f"program-stopped/{MACHINE}/comfyui-gpu1"),
    ):
        assert token in called, sorted(called)


def test_reading_commands_take_them(stack: Stack, called: dict[str, Name]) -> None:
    for token, name in sorted(called.items()):
        for words in (
            *(("logs", token, "-n", "1"), ("explain", token), ("journal", "--machine", token, "-n", "1")),
            *(("top", "-1", "-i", "0.2", token), ("logs", name.machine, token, "-n", "1")),
        ):
            done = emp(stack, *words)
            # Several differences of one machine are told apart by their keys.
            chosen = words[0] == "explain" and "drifts are meant by that; choose one" in said(done)
            assert done.exit_code == 0 or chosen, f"{words}: {said(done)}"
    for part in CONTROL:
        assert emp(stack, "logs", part, "-n", "1").exit_code in (0, 2)


def test_orders_take_them_and_say_what_they_are_on(stack: Stack, called: dict[str, Name]) -> None:
    for token, name in sorted(called.items()):
        if name.own:
            done = emp(stack, "pause", token)
            assert done.exit_code != 0 and "starts and ends with the machine" in said(done)
            continue
        for words in ((token,), (name.machine, token)):
            paused = emp(stack, "pause", *words)
            assert paused.exit_code == 0 and f"{name.text} is paused" in paused.output, f"{words}: {said(paused)}"
            again = emp(stack, "resume", *words)
            assert again.exit_code == 0 and f"{name.text} is no longer paused" in again.output, said(again)


def test_what_is_of_machines_only_says_so(stack: Stack, called: dict[str, Name]) -> None:
    for token, name in sorted(called.items()):
        if name.program is not None and not name.own:
            for words in (("drain", "--no-wait", token), ("scale", token, "2", "-y")):
                done = emp(stack, *words)
                assert done.exit_code != 0, words
                assert f"{name.text} is a program of machine {name.machine}" in said(done), said(done)
    drained = emp(stack, "drain", "--no-wait", f"machine-{MACHINE}")
    assert drained.exit_code == 0 and f"{MACHINE} is being drained" in drained.output, said(drained)
    assert emp(stack, "resume", f"machine-{MACHINE}").exit_code == 0
    stack.until_in_sync()


@pytest.mark.parametrize(
    "words",
    [
        (f"{MACHINE}/comfyui-gpu0",),
        (f"machine-{MACHINE}", "comfyui-gpu0"),
    ],
)
def test_restart_takes_them(stack: Stack, words: tuple[str, ...]) -> None:
    before = stack.program("comfyui-gpu0"), stack.program("comfyui-gpu1")
    assert stack.ok("restart", *words) == f"{MACHINE} comfyui-gpu0 was restarted\n"
    assert stack.program("comfyui-gpu0") != before[0] and stack.program("comfyui-gpu1") == before[1]


def test_exec_takes_them(stack: Stack) -> None:
    for word in (f"machine-{MACHINE}", f"{MACHINE}/comfyui-gpu0", f"{MACHINE}-worker-0"):
        assert stack.ok("exec", word, "--", "pwd").strip() == str(stack.layout.machine(MACHINE))


async def test_the_api_takes_them(stack: Stack) -> None:
    before = stack.program("redis-worker-gpu0")
    async with aiohttp.ClientSession() as http:
        url = f"{stack.api}/api/machines/machine-{MACHINE}/programs/{MACHINE}-worker-0/restart?wait=60"
        async with http.post(url) as answer:
            assert answer.status == 200, await answer.text()
        async with http.post(f"{stack.api}/api/machines/{MACHINE}-worker-0/restart") as answer:
            assert answer.status == 404
            assert f"/api/machines/{MACHINE}/programs/redis-worker-gpu0/restart" in await answer.text()
        async with http.post(f"{stack.api}/api/machines/basic/restart") as answer:
            assert answer.status == 404 and "there is no machine 'basic'" in await answer.text()
    assert stack.program("redis-worker-gpu0") != before


def test_what_nobody_is_called_is_bad_usage_with_the_nearest_names(stack: Stack) -> None:
    near = f"{MACHINE}/comfyui-gpu2"
    for words in (("restart", near), ("pause", near), ("exec", near, "--", "true"), ("top", "-1", near)):
        done = stack.run(*words)
        assert done.returncode == 2 and "did you mean comfyui-gpu" in done.stderr, f"{words}: {done.stderr}"
