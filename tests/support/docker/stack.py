"""A whole fleet, brought up by `emp`, whose machines are containers of an engine of the tests."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.docker.engine import Engine
from support.stack.stack import Stack


class EngineStack(Stack):
    """Every command speaks with `engine`; `shell` stands in the environment of each, too."""

    shell: Mapping[str, str] = {}

    def __init__(self, folder: Path, engine: Engine, *, name: str) -> None:
        super().__init__(folder, name=name)
        self.engine = engine

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"DOCKER_HOST": self.engine.url, **self.shell, **env})
