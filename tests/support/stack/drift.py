"""A fleet made for causing drift: machines with steered services, its journal, and the words of strangers in Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import redis
from msgspec import Struct
from redis.commands.core import Script

from emp_orch.procident import alive
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.runtimes.process.supervisor import Supervisor
from emp_orch.seals import for_generation
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import FORGET, PUT, keys_of
from support.stack.stack import Stack, until

FLEET = "kinds"
KEYS = Keys("")
SCRIPT = Path(__file__).parent / "steered.py"
SERVICES = ("first", "second", "third", "fourth", "slow")

# Repairs are never held back here: not by budgets, the breaker or other machines.
TEXT = """\
version: 1
name: {name}
redis: {{url: embedded, port: {redis}}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
services:
{services}
machines:
  box:
    num_gpus: 1
    services: [first, second, third, fourth]
    worker: {{drain_timeout: 0s}}
  slots:
    num_gpus: 5
    services: []
    worker: {{drain_timeout: 0s, capabilities: {{tier: gold}}}}
  patient:
    num_gpus: 1
    services: [slow]
    worker: {{drain_timeout: 0s}}
  spare:
    num_gpus: 0
    services: []
reconcile:
  interval: 200ms
  stale_after: 5s
  max_unavailable: 10
  budget: {{program: 100, machine: 100}}
  breaker: {{share: 1, window: 100ms}}
  rollout: {{min_healthy: 0s}}
"""


class Sight(Struct, frozen=True):
    """A drift that is to be seen, by its key: KIND/MACHINE/SUBJECT. `line`: how its line in emp.yaml begins; empty when
    no line is to blame. `operation`: the key of what emp does about it; empty when it does nothing.
    """

    key: str
    line: str
    operation: str = ""

    @property
    def kind(self) -> str:
        return self.key.partition("/")[0]


class Entry(Struct, frozen=True, kw_only=True):
    type: str
    data: dict[str, Any]


class Lab:
    """The fleet, and hands to break it with. Whatever was stopped by SIGSTOP goes on by `wake`."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder, name=FLEET)
        ports = self.stack.ports
        listed = [self._service(name, ports["comfyui"] + n) for n, name in enumerate(SERVICES)]
        self.stack.file.write_text(
            TEXT.format(
                name=FLEET,
                services="\n".join(listed),
                redis=ports["redis"],
                api=ports["api"],
                monitor=ports["monitor"],
            )
        )
        self.ports = {name: ports["comfyui"] + n for n, name in enumerate(SERVICES)}
        self._asleep: list[int] = []
        self._by_hand: subprocess.Popen[bytes] | None = None
        self._origins: dict[str, str] = {}
        self._squatter: socket.socket | None = None

    @cached_property
    def redis(self) -> redis.Redis:
        """Once the fleet is up: its first apply makes the password."""
        return redis.Redis.from_url(self.stack.redis_url, decode_responses=True)

    @cached_property
    def _put(self) -> Script:
        return self.redis.register_script(PUT)

    @cached_property
    def _forget(self) -> Script:
        return self.redis.register_script(FORGET)

    def _service(self, name: str, port: int) -> str:
        self.steer(name, "well")
        command = json.dumps([sys.executable, str(SCRIPT), "${port}", str(self._wheel(name))])
        more = {
            "second": ", depends_on: [first]",
            "third": ", connector: none",
            "slow": ", connector: http, connector_options: {path: /, health_path: /}",
        }.get(name, "")
        health = "" if name == "slow" else ", health: {http: /, interval: 200ms, timeout: 300ms, failures: 2}"
        return f"  {name}: {{scale: per_machine, port: {port}, command: {command}{health}{more}}}"

    def close(self) -> None:
        """Bring the fleet down, whatever state it is in."""
        self.wake()
        self.give_port_back()
        self.redis.close()
        self.stack.run("down")
        if self._by_hand is not None:
            self._by_hand.kill()  # it has ended, if emp did what it should
            self._by_hand.wait()

    # -- causing

    def _wheel(self, service: str) -> Path:
        return self.stack.root / f"{service}.steer"

    def steer(self, service: str, word: str) -> None:
        """What every program of `service` does from now on."""
        new = self._wheel(service).with_suffix(".new")
        new.write_text(word)
        new.replace(self._wheel(service))

    def call(self, machine: str, method: str, *args: object) -> Any:
        """A method of the machine's supervisord, by a stranger."""
        return asyncio.run(Supervisor(self.stack.layout.machine(machine)).call(method, *args))

    def call_control(self, method: str, *args: object) -> Any:
        """The same of the control plane's."""
        return asyncio.run(Supervisor(self.stack.layout.control).call(method, *args))

    def kill(self, machine: str, program: str, sig: signal.Signals = signal.SIGKILL) -> None:
        pid = self.stack.program(program, machine).pid
        if sig is signal.SIGSTOP:
            self._asleep.append(pid)
        os.kill(pid, sig)

    def start_by_hand(self, machine: str, redis_url: str) -> None:
        """Start a machine that does not run, as a person may: with a Redis of their own choice."""
        layout = self.stack.layout
        argv = self.stack.argv("machine", machine, "--dir", str(layout.machine(machine)), "--logs", str(layout.logs))
        before = self.stack.program("supervisord", machine)
        os.kill(before.pid, signal.SIGKILL)
        until(f"{machine} ended", lambda: not alive(before))
        self._by_hand = subprocess.Popen(
            argv,
            env={**os.environ, "HUB_REDIS_URL": redis_url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill_and_stop_the_next(self, machine: str, program: str) -> None:
        """Kill it; what comes in its place hangs before it has said a word."""
        before = self.stack.program(program, machine)
        os.kill(before.pid, signal.SIGKILL)
        until(f"another {program}", lambda: self.stack.program(program, machine) != before)
        self.kill(machine, program, signal.SIGSTOP)

    def wake(self) -> None:
        """Let all go on that hangs, as far as it is there."""
        for pid in self._asleep:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._asleep.clear()

    def take_port(self, service: str) -> None:
        """Listen where `service` should, as soon as it does not."""

        def taken() -> bool:
            with suppress(OSError):
                self._squatter = socket.create_server(("127.0.0.1", self.ports[service]))
            return self._squatter is not None

        until(f"the port of {service} is free", taken)

    def give_port_back(self) -> None:
        if self._squatter is not None:
            self._squatter.close()
            self._squatter = None

    def edit(self, *changes: tuple[str, str]) -> None:
        """Put `new` in the place of `old` in emp.yaml."""
        text = self.stack.file.read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.stack.file.write_text(text)

    def apply(self, *args: str) -> None:
        self.stack.ok("apply", "-y", "--no-wait", *args)

    def apply_as_another_emp(self, machine: str, like: str, **changes: object) -> None:
        """Publish a generation with one machine more, which this emp would not accept: one `like` that of the file."""
        number = int(cast(str, self.redis.get(KEYS.generation(FLEET))))
        generation = json.loads(cast(str, self.redis.get(KEYS.spec(FLEET, number))))
        del generation["seal"]
        machines = generation["fleet"]["machines"]
        (copied,) = (m for m in machines if m["id"] == like)
        machines.append({**copied, "id": machine, **changes})
        generation |= {"number": number + 1, "digest": "another"}
        seal = SigningKey(self.stack.layout, FLEET).control()
        sealed = seal.sealed(for_generation(FLEET), json.dumps(generation).encode())
        self.redis.set(KEYS.spec(FLEET, number + 1), sealed)
        self.redis.set(KEYS.generation(FLEET), number + 1)

    def document(self, what: str, subject: str) -> dict[str, Any]:
        """The report of a machine or worker, as it stands in Redis."""
        return cast(dict[str, Any], json.loads(cast(str, self.redis.hget(f"{what}s", subject))))

    def report(self, what: str, subject: str, text: str) -> None:
        """Write a report in another's place, the way reports are written."""
        self._put(keys=keys_of(KEYS, what), args=[subject, text, ""])

    def withdraw(self, what: str, subject: str) -> None:
        """Take another's report away, the way reports are taken away."""
        assert self._forget(keys=keys_of(KEYS, what), args=[subject, ""])

    def forge(self, what: str, subject: str, like: str = "", **changes: object) -> None:
        """Report as `subject`, with the words of `like` [the same] but for `changes`."""
        self.report(what, subject, json.dumps({**self.document(what, like or subject), **changes}))

    # -- seeing

    def pause(self) -> None:
        self._post("pause", {"reason": "something is being broken", "by": "the test"})

    def resume(self) -> None:
        self._post("resume", {"by": "the test"})

    def _post(self, verb: str, body: dict[str, str]) -> None:
        self._ask("POST", f"/api/reconcile/{verb}", json.dumps(body).encode())

    def forget(self, machine: str) -> None:
        """As a person does with a machine that is no more: DELETE, once emp takes it for silent."""

        def gone() -> bool:
            with suppress(urllib.error.HTTPError):
                self._ask("DELETE", f"/api/machines/{machine}")
                return True
            return False

        until(f"{machine} is forgotten", gone)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.stack.api + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["success"]

    def drift(self) -> list[dict[str, Any]]:
        """What `emp diff --json` lists."""
        code, document = self.stack.diff()
        assert code == (0 if document["in_sync"] else 1)
        return [item["drift"] for item in document["drift"]]

    def until_seen(self, sights: Sequence[Sight], again: Callable[[Lab], object]) -> None:
        """Until one `emp diff --json` lists them all, each with its line; `again` is done before each look."""
        found: list[dict[str, Any]] = []

        def all_listed() -> bool:
            again(self)
            found[:] = self.drift()
            return {s.key for s in sights} <= {_key(d) for d in found}

        try:
            until("listed", all_listed)
        except AssertionError:
            wanted, listed = [s.key for s in sights], [_key(d) for d in found]
            raise AssertionError(f"emp diff lists\n{listed}\nand not all of\n{wanted}{self.stack.log_ends()}") from None
        for sight in sights:
            (drift,) = (d for d in found if _key(d) == sight.key)
            assert self.line(drift["origin"]).startswith(sight.line), drift
            assert bool(drift["origin"]) == bool(sight.line), drift
            self._origins[sight.key] = drift["origin"]

    def line(self, origin: str) -> str:
        """The line of emp.yaml that `origin` names; empty for none."""
        if not origin:
            return ""
        file, line, column = origin.split(":")
        assert file == self.stack.file.name
        text = self.stack.file.read_text().splitlines()[int(line) - 1]
        assert not text[: int(column) - 1].strip()
        return text.strip()

    def place(self) -> str:
        """Where the journal ends now."""
        entries = cast(list[tuple[str, Any]], self.redis.xrevrange(KEYS.journal(FLEET), count=1))
        return entries[0][0] if entries else "0-0"

    def journal(self, place: str) -> list[Entry]:
        """What was written since `place`."""
        entries = cast(list[tuple[str, dict[str, str]]], self.redis.xrange(KEYS.journal(FLEET), f"({place}"))
        return [Entry(type=f["type"], data=json.loads(f["data"])) for _, f in entries]

    def until_told(self, type_: str, sights: Sequence[Sight], place: str) -> None:
        """Until the journal has an entry of `type_` for each since `place`."""

        def lacking() -> str:
            told = {e.data.get("key") for e in self.journal(place) if e.type == type_}
            return " ".join(s.key for s in sights if s.key not in told)

        self._until_none(lacking, f"{type_} since {place}", place)

    def until_begun(self, sights: Sequence[Sight], place: str) -> None:
        """Until the journal says that emp has begun to act on each."""

        def lacking() -> str:
            begun = {e.data.get("operation") for e in self.journal(place) if e.type == "operation_begun"}
            return " ".join(s.operation for s in sights if s.operation not in begun)

        self._until_none(lacking, f"operation_begun since {place}", place)

    def until_healed(self, sights: Sequence[Sight], place: str) -> None:
        """Until the journal has the whole story of each, begun since `place`."""
        self._until_none(
            lambda: next((m for s in sights if (m := missing(self.journal(place), s))), ""), "a story", place
        )
        for sight in sights:
            opened = [e.data for e in self.journal(place) if e.type == "drift_opened" and e.data["key"] == sight.key]
            if sight.key in self._origins:
                assert {o["origin"] for o in opened} == {self._origins[sight.key]}, opened
            else:
                assert all(self.line(o["origin"]).startswith(sight.line) for o in opened), opened

    def _until_none(self, lacking: Callable[[], str], what: str, place: str) -> None:
        try:
            until(what, lambda: not lacking())
        except AssertionError:
            told = "\n".join(f"{e.type} {e.data}" for e in self.journal(place))
            raise AssertionError(f"{what}: {lacking()} is not in\n{told}{self.stack.log_ends()}") from None

    def until_whole(self, *, but: str = "") -> None:
        """Until `emp diff --json` lists nothing, or nothing but of machine `but`."""
        found: list[str] = []

        def nothing_listed() -> bool:
            found[:] = [_key(d) for d in self.drift() if d["machine_id"] != but]
            return not found

        try:
            until("in sync", nothing_listed)
        except AssertionError:
            raise AssertionError(f"still {found}{self.stack.log_ends()}") from None


def missing(entries: Sequence[Entry], sight: Sight) -> str:
    """The first step of a drift's story that `entries` lack, or have out of order; empty when the story is whole.

    Opened; where emp acts: decided, begun, done; closed. A machine may say that it is done after that has shown.
    """
    steps = [("drift_opened", {"key": sight.key}), ("drift_closed", {"key": sight.key})]
    if sight.operation:
        about = {"operation": sight.operation}
        deed = [("decision", {"key": sight.key, "decision": "run", **about}), ("operation_begun", about)]
        if lacking := _after(entries, [*deed, ("operation_ended", {**about, "outcome": "done"})]):
            return lacking
        steps[1:1] = deed
    return _after(entries, steps)


def _after(entries: Sequence[Entry], steps: Sequence[tuple[str, dict[str, str]]]) -> str:
    """The first of `steps` that does not follow the one before."""
    at = iter(entries)
    for type_, data in steps:
        if not any(e.type == type_ and data.items() <= e.data.items() for e in at):
            return f"{type_} {data}"
    return ""


def _key(drift: dict[str, Any]) -> str:
    return f"{drift['kind']}/{drift['machine_id']}/{drift['subject']}"
