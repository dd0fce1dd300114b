"""The provider `command` with real programs: one that keeps the contract, and those that do what programs do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emp_orch.errors import Exit
from emp_orch.fleet.model.fleet import MachineId, PoolName
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.layout import Layout
from emp_orch.procident import identify, wait_end
from emp_orch.runtimes.providers.base import Making, ProviderError
from emp_orch.runtimes.providers.command.provider import CommandProvider
from emp_orch.runtimes.providers.command.run import CannotRun
from emp_orch.runtimes.providers.registry import load
from emp_orch.settings import write_private
from support.pools import boxes_program
from support.provider_contract import RULES, Rule, Subject, launch, rule_name

FLEET, POOL = "studio", PoolName("renders")
MEMBER = MachineId("renders-7f3k9a2b")
PROGRAM = str(boxes_program.__file__)
# Answers `list` with what follows, and everything else with {}.
ANSWERS = """\
import json, sys
asked = json.load(sys.stdin)
if asked["request"] != "list":
    print("{}")
    sys.exit()
owner = asked["owner"]
"""


def provider(folder: Path, *command: str, pool: PoolName = POOL, fleet: str = FLEET, **options: Any) -> CommandProvider:
    given = {"command": [*command], "every": "0s", **options}
    made = load("command", Making(fleet=fleet, pool=pool, options=given, folder=str(folder / ".emp")))
    assert isinstance(made, CommandProvider)
    return made


def scripted(folder: Path, text: str, **options: Any) -> CommandProvider:
    (folder / "mine.py").write_text(text)
    return provider(folder, sys.executable, "./mine.py", **options)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    """The folder of boxes_program; no box of it is left."""
    folder = tmp_path / "engine"
    yield folder
    for path in folder.glob("*/*.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
async def test_a_program_keeps_the_contract(rule: Rule, engine: Path, tmp_path: Path) -> None:
    def made(fleet: str, pool: PoolName) -> CommandProvider:
        return provider(tmp_path, sys.executable, PROGRAM, str(engine), "sleep", "86399", fleet=fleet, pool=pool)

    await rule(Subject(provider=made, launch=launch()))
    async with asyncio.timeout(10):  # they were told to end
        while any(boxes_program.alive(p) for p in engine.glob("*/*.pid")):
            await asyncio.sleep(0.05)


async def test_what_a_box_is_started_with_is_in_the_document(tmp_path: Path) -> None:
    own = scripted(tmp_path, "import sys; open('asked', 'w').write(sys.stdin.read()); print('{}')")
    asked = launch(image="registry.example.com/box:1", num_gpus=2, stop_s=5, ZONE="b")(FLEET, POOL, MEMBER)
    await own.create(asked)
    found = json.loads((tmp_path / "asked").read_text())
    assert found.pop("owner").startswith("studio.renders.")
    assert found.pop("environment") == {
        "ZONE": "b",
        "EMP_JOIN_URL": asked.api,
        "EMP_POOL": "renders",
        "EMP_JOIN_AS": MEMBER,
        "EMP_JOIN_TOKEN": asked.token,
    }
    assert found == {
        "version": 1,
        "request": "create",
        "fleet": "studio",
        "pool": "renders",
        "member": MEMBER,
        "image": "registry.example.com/box:1",
        "gpus": "none",
        "num_gpus": 2,
        "volumes": [],
        "cpus": None,
        "memory_bytes": None,
        "shm_bytes": None,
        "stop_seconds": 5.0,
    }
    await own.remove(MEMBER, stop_s=7)
    found = json.loads((tmp_path / "asked").read_text())
    assert (found["request"], found["member"], found["stop_seconds"]) == ("remove", MEMBER, 7.0)


async def test_a_program_has_the_variables_that_are_named_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Layout(tmp_path).control.mkdir(parents=True)
    write_private(Layout(tmp_path).secrets, msgspec.json.encode({"env:API_KEY": "open-sesame", "env:OTHER": "x-y-z-w"}))
    monkeypatch.setenv("API_KEY", "of the shell")
    monkeypatch.setenv("EMP_SETTING", "1")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/d.sock")
    own = scripted(
        tmp_path,
        "import json, os; json.dump(dict(os.environ), open('environ', 'w')); print('{}')",
        env={"RENT_KEY": {"env": "API_KEY"}, "REGION": "eu"},
    )
    await own.remove(MEMBER, stop_s=1)
    found = json.loads((tmp_path / "environ").read_text())
    assert (found["RENT_KEY"], found["REGION"], found["DOCKER_HOST"]) == ("open-sesame", "eu", "unix:///run/d.sock")
    assert not {"API_KEY", "OTHER", "EMP_SETTING", "EMP_JOIN_TOKEN"} & set(found)
    # The next apply resolves it no more, since its pool goes: the boxes are still to be given back.
    write_private(Layout(tmp_path).secrets, b"{}")
    await own.remove(MEMBER, stop_s=1)
    assert json.loads((tmp_path / "environ").read_text())["RENT_KEY"] == "open-sesame"
    with pytest.raises(ProviderError, match="the secret env:API_KEY of renders has no value"):
        await provider(tmp_path, "true", env={"RENT_KEY": {"env": "API_KEY"}}).boxes()


@asynccontextmanager
async def child_noted(folder: Path) -> AsyncIterator[None]:
    """What a program noted as its own child has ended within ten seconds of the end of the block."""
    yield
    who = identify(int((folder / "child").read_text()))
    assert who is None or await asyncio.to_thread(wait_end, who, 10.0)


HANGS = """\
import subprocess, sys, time
child = subprocess.Popen(["sleep", "86398"])
open("child", "w").write(str(child.pid))
print("waiting for a free node", file=sys.stderr, flush=True)
time.sleep(86398)
"""


async def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    own = scripted(tmp_path, HANGS, timeout="2s")
    async with child_noted(tmp_path):
        with pytest.raises(ProviderError, match="did not end within 2 s, and was killed, at list: waiting for a free"):
            await own.boxes()


async def test_a_request_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    own = scripted(tmp_path, HANGS)
    async with child_noted(tmp_path):
        asked = asyncio.create_task(own.remove(MEMBER, stop_s=1))
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            await asyncio.sleep(0.02)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_what_it_leaves_in_its_group_goes_and_is_not_waited_for(tmp_path: Path) -> None:
    leaves = "import subprocess; c = subprocess.Popen(['sleep', '86397']); open('child', 'w').write(str(c.pid))\n"
    own = scripted(tmp_path, leaves + "print('{}')")
    async with child_noted(tmp_path):
        await own.remove(MEMBER, stop_s=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; sys.exit('no node has a free gpu') ", "exited with status 1 at create: no node has a free gpu"),
        ("import sys; print('a\\x1b[31mb', file=sys.stderr); sys.exit(3)", "exited with status 3 at create: ab"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL at create"),
        ("print('done')", "at create: it printed what is no JSON"),
        ("pass", "at create: it printed nothing, and not {}"),
        ("print('[]')", "at create: it printed JSON that is no {}"),
        ("print('{\"boxes\": []}')", "unknown field `boxes`"),
        ("print('{} {}')", "what is no JSON"),
        ("print('{}' + ' ' * 100_000)", "printed more than 65536 bytes, and was killed, at create"),
        ("print('[' * 60_000)", "at create: it printed"),
        ("import sys; print(open(0).read().split('JOIN_TOKEN\":\"')[1][:60]); sys.exit(0)", r"no JSON .*: \*\*\*"),
        ("import sys; sys.exit(sys.stdin.read().split('AS\":')[1][:90])", r"status 1 .*\*\*\*"),
    ],
)
async def test_what_is_wrong_is_told_in_its_own_words(text: str, said: str, tmp_path: Path) -> None:
    own = scripted(tmp_path, text)
    asked = launch()(FLEET, POOL, MEMBER)
    with pytest.raises(ProviderError, match=said) as e:
        await own.create(asked)
    assert e.value.message.isprintable() and "mine.py" in e.value.message
    assert asked.token not in e.value.message and asked.token not in e.value.hint


async def test_the_end_of_long_words_is_shown(tmp_path: Path) -> None:
    text = "import sys\nfor n in range(9999): print('line', n, 'x' * 150, file=sys.stderr)\nraise ValueError('the end')"
    with pytest.raises(ProviderError, match=r"ValueError: the end$") as e:
        await scripted(tmp_path, text).boxes()
    assert len(e.value.message) < 500


async def test_no_program_or_one_that_is_none_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"`\./none` cannot be run in .*: No such file or directory") as e:
        await provider(tmp_path, "./none").boxes()
    assert e.value.exit_code is Exit.USAGE and "folder of emp.yaml" in e.value.hint
    (tmp_path / "plain").write_text("#!/bin/sh\necho '{}'\n")
    with pytest.raises(CannotRun, match="Permission denied"):
        await provider(tmp_path, "./plain").boxes()
    (tmp_path / "plain").chmod(0o755)
    await provider(tmp_path, "./plain").remove(MEMBER, stop_s=1)


async def listed(folder: Path, boxes: str, **options: Any) -> tuple[Box, ...]:
    return await scripted(folder, f'{ANSWERS}print(json.dumps({{"boxes": {boxes}}}))', **options).boxes()


BOX = "owner=owner, member='renders-7f3k9a2b'"


async def test_boxes_of_others_are_left_out(tmp_path: Path) -> None:
    boxes = await listed(
        tmp_path,
        f"[dict({BOX}, state='pending', ref='a', words='no\\nnode'),"
        f" dict({BOX} , state='running') | dict(owner='studio.renders.00000000'),"
        " dict(owner=owner + '-b', member='other-1', state='running')]",
    )
    assert boxes == (Box(member_id=MEMBER, state=BoxState.PENDING, ref="a", words=r"no\nnode"),)


async def test_of_a_members_boxes_the_one_that_lives_counts(tmp_path: Path) -> None:
    ended, lives = f"dict({BOX}, state='ended', ref='old')", f"dict({BOX}, state='running', ref='new')"
    for order in (f"[{ended}, {lives}]", f"[{lives}, {ended}]"):
        assert await listed(tmp_path, order) == (Box(member_id=MEMBER, state=BoxState.RUNNING, ref="new"),)
    with pytest.raises(ProviderError, match="it lists two boxes of renders-7f3k9a2b: new and one without ref"):
        await listed(tmp_path, f"[{lives}, dict({BOX}, state='unknown')]")


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (f"[dict({BOX}, state='running', stauts=1)]", r"unknown field `stauts` - at `\$\.boxes\[0\]`"),
        (f"[dict({BOX})]", "missing required field `state`"),
        (f"[dict({BOX}, state='up')]", "Invalid enum value 'up'"),
        (f"[dict({BOX}, state='running', ref=7)]", "Expected `str`, got `int`"),
        (f"[dict({BOX}, state='running', words='x' * 20_000)]", "length <= 16384"),
        ("[dict(owner=owner, member='x' * 300, state='running')]", "length <= 255"),
        ("[dict(owner=owner, member='others-1', state='running')]", r"boxes\[0\]: others-1 is no member of pool"),
        ("[dict(owner=owner, member='renders-/../x', state='running')]", "is no member of pool renders"),
        (f"[dict({BOX}, state='ended')] * 20_001", "length <= 20000"),
        ("'x' * 17_000_000", "printed more than 16777216 bytes, and was killed, at list"),
    ],
)
async def test_a_list_that_is_none_is_refused(boxes: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=said):
        await listed(tmp_path, boxes)


async def test_a_secret_is_in_no_words(tmp_path: Path) -> None:
    Layout(tmp_path).control.mkdir(parents=True)
    write_private(Layout(tmp_path).secrets, msgspec.json.encode({"env:KEY": "open-sesame"}))
    env = {"KEY": {"env": "KEY"}}
    (box,) = await listed(
        tmp_path,
        f"[dict({BOX}, state='pending', words='refused for open-sesame', node='http://me:open-sesame@node')]",
        env=env,
    )
    assert (box.words, box.node) == ("refused for ***", "http://***@node")
    with pytest.raises(ProviderError) as e:
        await scripted(tmp_path, "import os, sys; sys.exit('401 for ' + os.environ['KEY'])", env=env).boxes()
    assert e.value.message.endswith("at list: 401 for ***")
    with pytest.raises(ProviderError) as e:
        await scripted(tmp_path, "import os; print(os.environ['KEY'])", env=env).boxes()
    assert "open-sesame" not in e.value.message


async def test_a_list_is_asked_for_anew_when_it_is_old_or_may_be_another(engine: Path, tmp_path: Path) -> None:
    own = provider(tmp_path, sys.executable, PROGRAM, str(engine), "sleep", "86399", every="600s")
    assert await own.boxes() == () == await own.boxes()
    await own.create(launch()(FLEET, POOL, MEMBER))
    assert [b.state for b in await own.boxes()] == [BoxState.RUNNING]
    await own.boxes()
    await own.remove(MEMBER, stop_s=1)
    await asyncio.gather(own.boxes(), own.boxes())
    asked = (engine / "requests").read_text().split("\n")
    assert [line.split()[0] for line in asked if line] == ["list", "create", "list", "remove", "list"]
    (engine / "full").touch()
    with pytest.raises(ProviderError, match="at create: no node has a free gpu"):
        await own.create(launch()(FLEET, POOL, MachineId("renders-2222")))


async def test_requests_about_one_member_come_one_after_the_other(tmp_path: Path) -> None:
    """The program fails where another of it is under way."""
    own = scripted(
        tmp_path,
        "import os, time\nos.mkdir('busy')\ntime.sleep(0.2)\nos.rmdir('busy')\nprint('{}')\n",
    )
    asked = launch()(FLEET, POOL, MEMBER)
    await asyncio.gather(own.create(asked), own.create(asked), own.remove(MEMBER, stop_s=1))
    assert not (tmp_path / "busy").exists()
