"""`emp machine --stay`: the parent of supervisord passes signals on as an end in good order, and says what goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import SecretRef, Stop
from emp_orch.machine.healthcheck import verdict
from emp_orch.procident import ProcessIdentity, alive
from emp_orch.store.redis.client import Client
from support.fleet.fleets import service
from support.machine.machine import KEYS, Box, M, desired, running, sleeper
from support.redis.server import Server

DEAF = ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")


class Staying(Box):
    """A machine below a parent that stays; its Redis URL comes from a file."""

    started = False

    async def start(self, machine: DesiredMachine) -> None:
        await self.write(machine)
        self.secret.write_text(self._url + "\n")
        self.started = True
        self._child = subprocess.Popen(self.argv, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    @property
    def secret(self) -> Path:
        return self.root.parent / "url"

    @property
    def argv(self) -> list[str]:
        argv = [sys.executable, "-m", "emp_orch", "machine", M, "--dir", str(self.root), "--logs", str(self._logs)]
        return [*argv, "--stay"]

    @property
    def env(self) -> dict[str, str]:
        ours = {"HUB_REDIS_URL": "redis://192.0.2.1:1", "HUB_REDIS_URL_FILE": str(self.secret)}
        ours["EMP_SECRETS"] = str(self.secret.with_name("secrets.json"))
        return {**os.environ, **ours, "EMP_REDIS_PREFIX": KEYS.prefix}

    async def stop(self) -> None:
        if self.started:
            await super().stop()
            assert self._child.stdout is not None
            self._child.stdout.close()

    def signal(self, sig: signal.Signals = signal.SIGTERM) -> None:
        self._child.send_signal(sig)

    async def end(self) -> tuple[int, str]:
        """Exit code, and all that was said."""
        said, _ = await asyncio.to_thread(self._child.communicate, timeout=60)
        return self._child.returncode, said.decode()

    def lives(self, *names: str) -> list[ProcessIdentity]:
        found = [self.program(name) for name in names]
        assert all(found), f"not all of {names} run"
        return [who for who in found if who is not None]


@pytest.fixture
async def box(tmp_path: Path, r: Client, server: Server) -> AsyncIterator[Staying]:
    made = Staying(tmp_path, r, server.url)
    yield made
    await made.stop()


async def test_url_and_secrets_come_from_files(box: Staying, server: Server) -> None:
    box.secret.with_name("secrets.json").write_text('{"env:HF": "geheim"}')
    await box.start(desired(sleeper("a", env={"TOKEN": SecretRef(source="env", name="HF")})))
    await box.until_program("a", running)
    (who,) = box.lives("a")
    environ = Path(f"/proc/{who.pid}/environ").read_text().split("\0")
    assert {f"REDIS_URL={server.url}", f"HUB_REDIS_URL={server.url}", "TOKEN=geheim"} <= set(environ)


async def test_a_signal_ends_it_in_good_order(box: Staying, r: Client) -> None:
    await box.start(desired(sleeper("a")))
    await box.until_program("a", running)
    await box.until(lambda m: m.status == "ready")
    assert verdict(str(box.root)) == (0, "ready")
    ours = box.lives("supervisord", "agent", "a")
    box.signal()
    code, said = await box.end()
    assert code == 0, said
    assert not [who for who in ours if alive(who)]
    assert await box.report() is None, said + box.logs()
    assert "spawned: 'a'" in said
    assert said.index("stopped: a") < said.index("stopped: agent"), said
    assert verdict(str(box.root))[0] == 1


async def test_a_box_with_an_error_is_ill_and_alive(box: Staying) -> None:
    await box.start(desired(service("a", command=("false",))))
    await box.until(lambda m: "not up: a" in m.error)
    code, words = verdict(str(box.root))
    assert (code, words) == (1, "configuring: not up: a")
    # Who restarts what is not alive leaves it to emp.
    assert verdict(str(box.root), alive=True) == (0, words)
    box.signal()
    assert (await box.end())[0] == 0
    assert verdict(str(box.root), alive=True)[0] == 1


async def test_more_signals_end_it_sooner(box: Staying) -> None:
    await box.start(desired(service("a", command=DEAF, stop=Stop(signal="TERM", timeout_s=600.0))))
    await box.until_program("a", running)
    ours = box.lives("supervisord", "agent", "a")
    box.signal()
    box.signal(signal.SIGINT)
    box.signal()
    code, said = await box.end()
    assert code == 128 + signal.SIGKILL, said
    assert not [who for who in ours if alive(who)]


async def test_the_end_of_supervisord_is_its_end_and_leaves_nothing(box: Staying) -> None:
    await box.start(desired(sleeper("a")))
    await box.until_program("a", running)
    ours = box.lives("supervisord", "agent", "a")
    await box.kill("supervisord")
    code, said = await box.end()
    assert code == 128 + signal.SIGKILL, said
    assert not [who for who in ours if alive(who)]


async def test_it_tells_what_keeps_it_from_starting(box: Staying) -> None:
    box.secret.write_text("two redis://:geheim@127.0.0.1\n")
    told = await asyncio.to_thread(subprocess.run, box.argv, env=box.env, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert f"{box.secret}, which HUB_REDIS_URL_FILE names" in told.stderr
    assert "geheim" not in told.stdout + told.stderr
