"""A container's programs have what its image says and what emp.yaml gives, and of a shell what is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.docker.engine import Engine
from support.docker.stack import EngineStack

BOX = "box"
IMAGE = "emp-test-environments:1"
OF_IMAGE, MODELS, CANARY = "what-the-image-says", "/models-of-one-service", "canary-of-the-shell"
SHELL = {"HF_HOME": MODELS, "CANARY_SECRET": CANARY, "SSH_AUTH_SOCK": f"/{CANARY}"}
READ = "import pathlib; pid = pathlib.Path('/var/lib/emp-own/machine/run/{}').read_text().split()[0]; "
READ += "print(pathlib.Path('/proc', pid, 'environ').read_text())"


class OneBox(EngineStack):
    def __init__(self, folder: Path, engine: Engine) -> None:
        super().__init__(folder, engine, name="environments")
        ports = self.ports
        self.file.write_text(
            f"""\
version: 1
name: environments
redis: {{port: {ports["redis"]}}}
api: {{port: {ports["api"]}}}
monitor: {{port: {ports["monitor"]}}}
services:
  asks: {{scale: per_machine, command: sleep 100000, inherit: [HF_HOME, NOT_SET]}}
  plain: {{scale: per_machine, command: sleep 100000}}
machines:
  {BOX}: {{runtime: compose, image: '{IMAGE}', num_gpus: 1, services: [asks, plain]}}
"""
        )

    def has(self, program: str, value: str) -> bool:
        container = self.engine.docker("ps", "--quiet", "--filter", f"label=emp.machine={BOX}").strip()
        return value in self.engine.docker("exec", container, "python3", "-c", READ.format(program))


@pytest.fixture
def box(engine: Engine, machine_image: str, tmp_path: Path) -> Iterator[OneBox]:
    made = engine.docker("create", machine_image).strip()
    engine.docker("commit", "--change", f"ENV OF_IMAGE={OF_IMAGE}", made, IMAGE)
    engine.docker("rm", made)
    stack = OneBox(tmp_path, engine)
    yield stack
    stack.run("down", "--volumes")


def test_of_the_shell_only_what_is_named(box: OneBox) -> None:
    box.up(**SHELL)
    programs = ("supervisord", "agent", "asks", "plain", "redis-worker-gpu0")
    assert [p for p in programs if not box.has(p, OF_IMAGE)] == []
    assert [p for p in programs if box.has(p, CANARY)] == []
    assert [p for p in programs if box.has(p, MODELS)] == ["asks"]
    assert MODELS not in box.engine.docker("inspect", *box.engine.docker("ps", "--quiet").split())
