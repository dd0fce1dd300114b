"""Whoever can write in Redis: what they put there is not carried out, is told, and all goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from emp_orch.procident import ProcessIdentity
from emp_orch.store.redis.keys import Keys
from support.stack.stack import Stack, until

FLEET = "forged"
KEYS = Keys("")
HIGHEST = 999_999_999_999_999


class Attack:
    """A stack, and a client that may write whatever it likes in its Redis."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder)
        self.proof = folder / "proof"
        ports = self.stack.ports
        self.stack.file.write_text(
            f"""
version: 1
name: {FLEET}
redis: {{url: embedded, port: {ports["redis"]}}}
api: {{port: {ports["api"]}}}
monitor: {{port: {ports["monitor"]}}}
services:
  held: {{scale: per_machine, command: [sleep, infinity]}}
machines:
  box: {{num_gpus: 0, services: [held]}}
  other: {{num_gpus: 0, services: [held]}}
reconcile: {{interval: 500ms}}
"""
        )
        self.stack.up()
        self.r = redis.Redis.from_url(self.stack.redis_url, decode_responses=True)

    def close(self) -> None:
        self.stack.run("down")

    def held(self, machine: str = "box") -> ProcessIdentity:
        return self.stack.program("held", machine)

    def config(self, machine: str = "box") -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(cast(str, self.r.get(KEYS.config(machine)))))

    def with_a_program(self, config: dict[str, Any]) -> str:
        """`config`, with a program more that leaves proof that it ran."""
        more = f"\n[program:x]\ncommand=touch {self.proof}\nautostart=true\nstartsecs=0\nautorestart=false\n"
        return json.dumps({**config, "supervisord": config["supervisord"] + more, "generation": 99})

    def command(self, verb: str, *, machine: str = "box", program: str | None = None) -> str:
        return json.dumps({"epoch": HIGHEST, "count": 9, "seq": "forged", "verb": verb, "program": program})

    def send(self, text: str, machine: str = "box") -> None:
        self.r.xadd(KEYS.commands(machine), {"command": text})

    def sent(self, machine: str = "box") -> list[str]:
        return [fields["command"] for _, fields in cast(Any, self.r.xrange(KEYS.commands(machine)))]

    def until_told(self, machine: str = "box") -> str:
        """What the drift says once it tells of forged orders."""

        def look() -> str:
            _, found = self.stack.diff()
            about = [d["drift"] for d in found["drift"]]
            told = [d for d in about if d["kind"] == "orders-forged" and d["machine_id"] == machine]
            return told[0]["observed"] if told else ""

        return until("the forgery is told", look)

    def until_heard(self, machine: str = "box") -> None:
        """Everything that was sent has been read: an order of the fleet's own, sent after it, is carried out."""
        before = self.held(machine)
        self.stack.ok("restart", machine, "held")
        assert self.held(machine) != before


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    attack = Attack(tmp_path_factory.mktemp("forged"))
    try:
        yield attack
    finally:
        attack.close()
        left = attack.stack.leftovers()
        assert not left, "\n".join(left)


def test_a_program_that_somebody_adds_to_a_configuration_never_runs(attack: Attack) -> None:
    genuine = attack.r.get(KEYS.config("box"))
    attack.r.set(KEYS.config("box"), attack.with_a_program(attack.config()))
    attack.send(attack.command("apply_config"))
    attack.until_told()
    attack.until_heard()
    assert not attack.proof.exists()
    # Also where the command is the leader's own.
    attack.r.set(KEYS.config("box"), cast(str, genuine))


def test_a_configuration_of_somebody_is_passed_over_by_a_machine_that_starts(attack: Attack) -> None:
    attack.r.set(KEYS.config("box"), attack.with_a_program(attack.config()))
    before = attack.stack.program("agent", "box")
    attack.stack.ok("restart", "box")
    assert attack.stack.program("agent", "box") != before
    assert not attack.proof.exists()
    assert "seal" in attack.config()


@pytest.mark.parametrize("verb", ["stop_program", "restart_program", "start_program"])
def test_a_command_without_a_seal_is_not_carried_out(attack: Attack, verb: str) -> None:
    before = attack.held()
    attack.send(attack.command(verb, program="held"))
    assert "bears no seal" in attack.until_told()
    assert attack.held() == before
    attack.until_heard()


def test_what_was_said_before_is_not_carried_out_again(attack: Attack) -> None:
    attack.until_heard()
    (*_, last) = attack.sent()
    before = attack.held()
    for _ in range(3):
        attack.send(last)
    until("it is told", lambda: "said before" in attack.until_told())
    assert attack.held() == before


def test_what_was_said_to_one_machine_is_nothing_to_another(attack: Attack) -> None:
    attack.until_heard("other")
    before = attack.held()
    attack.send(attack.sent("other")[-1])
    attack.r.set(KEYS.config("box"), cast(str, attack.r.get(KEYS.config("other"))))
    until("it is told", lambda: "not this fleet's" in attack.until_told() or "does not fit" in attack.until_told())
    assert attack.held() == before
    attack.stack.ok("restart", "box")  # the leader writes its own again
    assert attack.config()["machine"]["id"] == "box"


def test_a_generation_of_somebody_is_not_carried_out(attack: Attack) -> None:
    number = int(cast(str, attack.r.get(KEYS.generation(FLEET))))
    spec = json.loads(cast(str, attack.r.get(KEYS.spec(FLEET, number))))
    spec["number"] = number + 1
    spec["fleet"]["services"]["held"]["command"] = ["touch", str(attack.proof)]
    attack.r.set(KEYS.spec(FLEET, number + 1), json.dumps(spec))
    attack.r.set(KEYS.generation(FLEET), number + 1)
    until("the one in force is back", lambda: attack.r.get(KEYS.generation(FLEET)) == str(number))
    attack.until_heard()
    assert not attack.proof.exists()
    log = attack.stack.layout.log("reconcile")
    until("it is told", lambda: f"going by generation {number}" in log.read_text())


def test_a_generation_of_before_does_not_come_back_by_its_number(attack: Attack) -> None:
    text = attack.stack.file.read_text()
    attack.stack.file.write_text(text.replace("sleep, infinity", "sleep, '1000000'"))
    attack.stack.ok("apply", "-y")
    number = int(cast(str, attack.r.get(KEYS.generation(FLEET))))
    attack.r.set(KEYS.generation(FLEET), number - 1)
    # The generation is read anew once its number is another.
    until("the one in force is back", lambda: attack.r.get(KEYS.generation(FLEET)) == str(number))
    attack.stack.file.write_text(text)
    attack.stack.ok("apply", "-y")


def test_a_drain_of_somebody_drains_nothing_and_pauses_until_it_is_lifted(attack: Attack) -> None:
    before = attack.held()
    drain = {"kind": "drain", "machine_id": "box", "reason": "x", "by": "x", "at": "2026-01-01T00:00:00.000Z"}
    attack.r.hset(KEYS.overrides(FLEET), "drain:box", json.dumps(drain))
    until("status tells", lambda: "not ordered by anybody" in attack.stack.run("status").stdout)
    assert attack.held() == before
    attack.stack.ok("resume")
    until("it is lifted", lambda: not attack.r.exists(KEYS.overrides(FLEET)))


def test_a_request_of_somebody_is_refused_and_one_that_was_answered_stays_so(attack: Attack) -> None:
    key = KEYS.requests(FLEET)
    attack.r.xadd(key, {"request": json.dumps({"verb": "restart_program", "machine_id": "box", "program": "held"})})
    until("it is answered", lambda: attack.r.xlen(key) == 0)
    with attack.r.monitor() as seen:
        attack.until_heard()
        asked = next(c["command"] for c in seen.listen() if c["command"].startswith(f"XADD {key} "))
    text = asked[asked.index("request ") + len("request ") :]
    before = attack.held()
    attack.r.xadd(key, {"request": text})
    until("it is answered", lambda: attack.r.xlen(key) == 0)
    attack.until_heard("other")
    assert attack.held() == before


def test_a_lease_and_an_epoch_of_somebody_lock_nobody_out(attack: Attack) -> None:
    attack.r.set(KEYS.epoch(FLEET), HIGHEST)
    attack.r.set(KEYS.leader(FLEET), "somebody@nowhere:1:1")
    until("the fleet is led again", lambda: attack.r.get(KEYS.leader(FLEET)) != "somebody@nowhere:1:1")
    attack.until_heard()
    epoch = int(cast(str, attack.r.get(KEYS.epoch(FLEET))))
    assert epoch < HIGHEST // 100
    attack.until_heard()
    assert int(cast(str, attack.r.get(KEYS.epoch(FLEET)))) == epoch


def test_the_key_is_drawn_anew_while_all_runs_on(attack: Attack) -> None:
    attack.until_heard()
    former, configuration = attack.sent()[-1], cast(str, attack.r.get(KEYS.config("box")))
    before = (attack.held(), attack.held("other"), attack.stack.program("agent", "box"))
    done = json.loads(attack.stack.ok("keys", "rotate", "--json"))
    assert done["machines"] == 2

    def sealed_anew() -> bool:
        return done["key"] in (attack.stack.layout.control / "sealed").read_text()

    until("every machine has its key", sealed_anew)
    assert (attack.held(), attack.held("other"), attack.stack.program("agent", "box")) == before
    attack.until_heard()
    held = attack.held()
    attack.send(former)
    until("it is told", lambda: "not this fleet's" in attack.until_told())
    assert attack.held() == held
    attack.r.set(KEYS.config("box"), configuration)
    attack.stack.ok("restart", "box")
    attack.stack.ok("rollback", "-y")
    attack.stack.ok("rollback", "-y")


def test_no_key_is_anywhere_but_in_private_files(attack: Attack) -> None:
    keys = [json.loads((attack.stack.layout.machine(m) / "orders.json").read_text())["key"] for m in ("box", "other")]
    keys.append(json.loads((attack.stack.layout.control / "signing.key").read_text())["key"])
    assert len(set(keys)) == 3
    for path in attack.stack.root.rglob("*"):
        if path.is_file() and any(k.encode() in path.read_bytes() for k in keys):
            assert path.name in ("orders.json", "signing.key")
            assert path.stat().st_mode & 0o777 == 0o600
    for name in cast(list[str], attack.r.keys("*")):
        dump = cast(bytes, attack.r.execute_command("DUMP", name, NEVER_DECODE=True))
        assert not any(k.encode() in dump for k in keys), name
