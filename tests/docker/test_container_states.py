"""What happens to a machine's container is told by its engine's own words, and mended: one fleet, hurt in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.docker.engine import BASE, Engine
from support.docker.stack import EngineStack
from support.stack.stack import until

BOX = "box"
LOOPS = "emp-test-loops:1"
SECRET = "correct-horse-battery"
HEALED_S = 120.0
# Eats memory once it is told to, and is in order until then.
HOG = "while [ ! -e /tmp/eat ]; do sleep 0.2; done; rm /tmp/eat; exec python3 -c 'b = bytearray(1 << 30)'"


class OneBox(EngineStack):
    """One machine in a container of `engine`."""

    shell: Mapping[str, str] = {"BOX_PASSWORD": SECRET}

    def __init__(self, folder: Path, engine: Engine, image: str) -> None:
        super().__init__(folder, engine, name="states")
        self.image = image
        self.write()

    def write(self, *, image: str = "") -> None:
        ports = self.ports
        self.file.write_text(
            f"""\
version: 1
name: states
redis: {{port: {ports["redis"]}}}
api: {{port: {ports["api"]}}}
monitor: {{port: {ports["monitor"]}}}
services:
  hog:
    scale: per_machine
    command: ["sh", "-c", {json.dumps(HOG)}]
    env: {{PASSWORD: {{env: BOX_PASSWORD}}}}
machines:
  {BOX}: {{runtime: compose, image: '{image or self.image}', num_gpus: 1, services: [hog], limits: {{memory: 512MiB}}}}
"""
        )

    @property
    def container(self) -> str:
        argv = ["ps", "--all", "--no-trunc", "--quiet", "--filter", f"label=emp.machine={BOX}"]
        return self.engine.docker(*argv, "--filter", "label=emp.fleet=states").strip()

    def drift(self) -> dict[str, dict[str, Any]]:
        return {d["drift"]["kind"]: d["drift"] for d in self.diff()[1]["drift"]}

    def row(self) -> str:
        """The machine's line of `emp status`."""
        shown: str = self.run("status").stdout
        return next((line for line in shown.splitlines() if line.startswith(f"{BOX} ")), "")

    def sees(self, kind: str) -> dict[str, Any]:
        until(kind, lambda: kind in self.drift(), shown=lambda: str(self.drift()))
        return self.drift()[kind]

    def healed(self) -> None:
        self.until_in_sync(within_s=HEALED_S)


@pytest.fixture(scope="module")
def box(engine: Engine, machine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneBox]:
    stack = OneBox(tmp_path_factory.mktemp("states"), engine, machine_image)
    try:
        stack.up()
        yield stack
    finally:
        stack.run("down")


def test_a_paused_container_is_told_as_paused_and_goes_on(box: OneBox) -> None:
    before = box.container
    box.ok("pause")
    box.engine.docker("pause", before)
    assert "somebody paused its container" in box.sees("container-paused")["cause"]
    assert " paused " in box.row()
    box.ok("resume")
    box.healed()
    assert box.container == before
    until("the row says ready", lambda: " ready " in box.row(), shown=box.row)


def test_a_container_without_its_network_is_connected_again(box: OneBox) -> None:
    before = box.container
    (network,) = box.engine.inspect(before)["NetworkSettings"]["Networks"]
    box.ok("pause")
    box.engine.docker("network", "disconnect", network, before)
    assert network in box.sees("container-cut-off")["cause"]
    assert "cut off" in box.row()
    box.ok("resume")
    box.healed()
    assert box.container == before


def test_a_program_that_ran_out_of_memory_says_so(box: OneBox) -> None:
    before = box.container
    box.engine.docker("exec", before, "touch", "/tmp/eat")

    def memory() -> Any:
        """What the machine reports of it: its program may run again before anybody looked for drift."""
        with urllib.request.urlopen(f"{box.api}/api/monitor/state", timeout=10) as answer:
            machines = {m["machine_id"]: m for m in json.load(answer)["data"]["machines"]}
        return (machines[BOX]["programs"]["hog"].get("last_end") or {}).get("memory")

    until("it is told", lambda: memory() is not None, shown=lambda: box.run("journal").stdout)
    assert memory()["limit"] == 512 * 2**20
    assert memory()["inside"] is True
    box.healed()
    assert box.container == before
    host = box.engine.inspect(before)["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 512 * 2**20
    assert host["PidsLimit"] > 0


REBUILT = "emp-machine:rebuilt"


def rebuilt(box: OneBox, source: str, mark: str) -> str:
    """Another image of the same content under REBUILT, as a build makes it; its id."""
    box.engine.docker("create", "--name", "emp-test-rebuilt", source)
    box.engine.docker("commit", "--change", f"LABEL rebuilt={mark}", "emp-test-rebuilt", REBUILT)
    box.engine.docker("rm", "emp-test-rebuilt")
    return str(box.engine.inspect(REBUILT)["Id"])


def image_of(box: OneBox) -> str:
    return str(box.engine.inspect(box.container)["Image"])


def test_an_image_that_is_built_anew_is_told_applied_and_rolled_back(box: OneBox) -> None:
    first = rebuilt(box, box.image, "1")
    box.write(image=REBUILT)
    box.ok("apply", "-y", "--timeout", "120")
    assert image_of(box) == first
    assert "nothing to do" in box.ok("apply", "-y")
    generation = json.loads(box.run("status", "--json").stdout)["generation"]
    second = rebuilt(box, box.image, "2")
    assert box.sees("image-moved")["observed"].startswith(second.removeprefix("sha256:")[:12])
    # What restarts by accident, or is made anew by hand, is the image that was applied.
    box.engine.docker("rm", "-f", box.container)
    until("it is made anew", lambda: box.container and "box" in box.row() and not box.drift().keys() - {"image-moved"})
    assert image_of(box) == first
    said = box.run("apply", "-y", "--timeout", "120")
    assert said.returncode == 0, said.stderr
    assert f"image {REBUILT} is another" in said.stderr
    box.healed()
    assert image_of(box) == second
    box.ok("rollback", str(generation), "-y", "--timeout", "120")
    assert image_of(box) == first


def test_an_image_that_nobody_has_stops_nothing_and_publishes_nothing(box: OneBox) -> None:
    before, generation = box.container, json.loads(box.run("status", "--json").stdout)["generation"]
    for image in ("emp-machine:no-such", "127.0.0.1:9/no/such:1"):
        box.write(image=image)
        said = box.run("apply", "-y", "--timeout", "120")
        assert said.returncode == 1
        assert "Docker host local" in said.stderr and image in said.stderr, said.stderr
        assert json.loads(box.run("status", "--json").stdout)["generation"] == generation
    assert box.container == before
    assert box.engine.status(before) == "running"


def test_a_loop_says_with_which_words_it_ends_and_no_secret(box: OneBox) -> None:
    """An image that ends at once; the one that works heals it, though the machine never reported."""
    said = f'ENTRYPOINT ["sh", "-c", "echo password is {SECRET}; exit 3"]'
    box.engine.docker("run", "--name", "emp-test-loops", BASE, "true")
    box.engine.docker("commit", "--change", said, "emp-test-loops", LOOPS)
    box.engine.docker("rm", "emp-test-loops")
    box.write(image=LOOPS)
    assert box.run("apply", "-y", "--timeout", "1").returncode != 0
    loop = box.sees("container-looping")
    assert "exit 3" in loop["cause"] or "exit 3" in loop["observed"]
    assert loop["cause"].endswith("last words: password is ***")
    assert SECRET not in json.dumps(box.diff()[1])
    until("the row says restarting", lambda: "restarting (exit 3)" in box.row())
    assert "ready" not in box.row()
    box.write()
    box.ok("apply", "-y", "--timeout", "120")
    box.healed()


def test_what_emp_made_is_removed_by_emp(box: OneBox) -> None:
    """The last: the fleet is down, its volumes and the images that were kept for it are gone, and others are not."""
    box.engine.docker("volume", "create", "--label", "emp.fleet=states", "--label", "emp.folder=00000000", "not-ours")
    volumes = ["volume", "ls", "-q", "--filter", "label=emp.fleet=states"]
    kept = ["image", "ls", "-q", "--no-trunc", "emp-kept/*"]
    box.ok("down")
    assert len(box.engine.docker(*volumes).split()) == 3, "its services', emp's own, and a stranger's"
    box.ok("down", "--volumes")
    assert box.engine.docker(*volumes).split() == ["not-ours"]
    before = set(box.engine.docker(*kept).split())
    box.ok("images", "prune")
    after = set(box.engine.docker(*kept).split())
    assert after < before
    # What the generation in force goes back to is kept.
    assert str(box.engine.inspect(box.image)["Id"]) in after
    root = box.root.rename(box.root.with_name("gone"))
    labels = ["--label", "emp.fleet=lost", "--label", "emp.folder=11111111", "--label", f"emp.root={box.root}"]
    box.engine.docker("volume", "create", *labels, "lost-volume")
    lost = box.engine.docker("run", "-d", *labels, "--entrypoint", "sleep", box.image, "600").strip()
    env = {**os.environ, "DOCKER_HOST": box.engine.url}
    argv = [sys.executable, "-m", "emp_orch", "-C", str(root), "down", "--all-of", "lost", "--volumes"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=180)
    assert (done.returncode, "removed: lost-volume" in done.stdout) == (0, True), done.stdout + done.stderr
    assert box.engine.status(lost) == ""
    root.rename(box.root)
