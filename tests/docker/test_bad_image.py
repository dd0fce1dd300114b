"""Images that people change, on a real engine: one that cannot work stops at the first machine, and is taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.docker.engine import Engine
from support.docker.stack import EngineStack
from support.stack.stack import until

pytestmark = pytest.mark.timeout(900)
FARM = ("farm-1", "farm-2", "farm-3")
GOOD, BAD = "emp-test-farm:{}", "emp-test-farm:bad"
WITHIN_S = 240.0


class Farm(EngineStack):
    """Three replicas in containers; `write` says from which image, and how it is rolled out."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        super().__init__(folder, engine, name="farm")

    def write(self, image: str, *, at_once: int = 1, rollback: bool = False, deadline: str = "10m") -> None:
        ports = self.ports
        rollout = f"min_healthy: 2s, progress_deadline: {deadline}, rollback: {str(rollback).lower()}"
        self.file.write_text(f"""
version: 1
name: farm
redis: {{port: {ports["redis"]}}}
api: {{port: {ports["api"]}}}
monitor: {{port: {ports["monitor"]}}}
services:
  simulation: {{scale: per_machine, builtin: simulation, port: 8299}}
machines:
  farm: {{runtime: compose, image: '{image}', services: [simulation], num_gpus: 1, replicas: 3}}
reconcile: {{interval: 1s, max_unavailable: {at_once}, rollout: {{{rollout}}}}}
""")

    def containers(self) -> dict[str, tuple[str, str]]:
        """Of each machine the container's id, and that of the image it was made from."""
        ids = self.engine.docker("ps", "--all", "--quiet", "--filter", "label=emp.fleet=farm").split()
        found = [self.engine.inspect(one) for one in ids]
        return {f["Config"]["Labels"]["emp.machine"]: (f["Id"], f["Image"]) for f in found}

    def image(self, name: str) -> str:
        return str(self.engine.inspect(name)["Id"])

    def journal(self, *types: str) -> list[str]:
        args = [word for type_ in types for word in ("--type", type_)]
        return [entry["type"] for entry in json.loads(self.ok("journal", "--json", "-n", "2000", *args))]

    def generation(self) -> int:
        return int(json.loads(self.run("diff", "--json").stdout)["generation"])

    def rollout(self) -> dict[str, object]:
        return dict(json.loads(self.run("diff", "--json").stdout)["rollout"] or {})


@pytest.fixture(scope="module")
def farm(engine: Engine, machine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    made = engine.docker("create", machine_image).strip()
    for n in range(6):
        engine.docker("commit", "--change", f"LABEL emp.test={n}", made, GOOD.format(n))
    ends = 'ENTRYPOINT ["/bin/sh", "-c", "echo no module named torch; exit 3"]'
    engine.docker("commit", "--change", ends, made, BAD)
    engine.docker("rm", made)
    stack = Farm(tmp_path_factory.mktemp("farm"), engine)
    try:
        stack.write(GOOD.format(0), at_once=3)
        stack.up()
        yield stack
    finally:
        stack.run("down")


def test_five_changes_in_ten_minutes_are_carried_out_each(farm: Farm) -> None:
    for n in range(1, 6):
        farm.write(GOOD.format(n), at_once=3)
        farm.up()
        assert {image for _, image in farm.containers().values()} == {farm.image(GOOD.format(n))}
    assert farm.journal("quarantined") == []


def test_a_bad_image_stops_at_the_first_machine_until_somebody_takes_it_back(farm: Farm) -> None:
    farm.write(GOOD.format(5), at_once=1, deadline="20s")
    farm.up()
    before = farm.containers()
    farm.write(BAD, deadline="20s")
    done = farm.run("apply", "-y", "--timeout", "170s")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "what is left needs a person" in done.stderr and "is halted" in done.stderr
    until("the rollout stalls", lambda: farm.rollout().get("stalled"), within_s=WITHIN_S)
    spoilt = [m for m in FARM if farm.containers()[m][1] == farm.image(BAD)]
    assert len(spoilt) == 1
    assert {m: farm.containers()[m] for m in FARM if m not in spoilt} == {m: before[m] for m in FARM if m not in spoilt}
    farm.ok("rollback", "-y", "--timeout", "4m")
    after = farm.containers()
    assert {image for _, image in after.values()} == {farm.image(GOOD.format(5))}
    assert {m: after[m] for m in FARM if m not in spoilt} == {m: before[m] for m in FARM if m not in spoilt}


def test_a_bad_image_is_taken_back_by_itself(farm: Farm) -> None:
    farm.write(GOOD.format(5), rollback=True, deadline="30s")
    farm.up()
    number, before = farm.generation(), farm.containers()
    farm.write(BAD, rollback=True, deadline="30s")
    done = farm.run("apply", "-y", "--timeout", "170s")
    assert (done.returncode, "is no longer in force" in done.stderr) == (1, True), done.stdout + done.stderr
    until("a rollback by itself", lambda: farm.generation() > number + 1, within_s=WITHIN_S)
    farm.until_in_sync(within_s=WITHIN_S)
    after = farm.containers()
    assert {image for _, image in after.values()} == {farm.image(GOOD.format(5))}
    assert sum(after[m] != before[m] for m in FARM) == 1
    assert farm.journal("rolled_back") == ["rolled_back"]
