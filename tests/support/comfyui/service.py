"""A ComfyUI that a test started: the real program or emp's twin, in the same way and with folders of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from support.redis.server import free_port
from support.tree import TESTS

NODES = TESTS / "contract" / "comfyui" / "nodes"
# The real one imports torch first; two at once on a busy machine take minutes.
START_S = 280.0


def twin_checkout(folder: Path, **options: Any) -> Path:
    """A checkout whose main.py is the twin; `options` as those of `checkout.main`."""
    (folder / "models" / "checkpoints").mkdir(parents=True)
    told = ", ".join(f"{name}={value!r}" for name, value in options.items())
    text = f"from emp_orch.services.simulation.checkout import main; main({told})\n"
    (folder / "main.py").write_text(text)
    return folder


class ComfyService:
    """One process. `kind` is `twin` or `real`; `files` is shared when two are to fight over it."""

    def __init__(self, checkout: Path, python: str, folder: Path, *, files: Path | None = None) -> None:
        self.checkout = checkout
        self.python = python
        self.folder = folder
        self.files = files or folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("output", "input", "user", "temp"):
            (self.files / name).mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def output(self) -> Path:
        return self.files / "output"

    @property
    def input(self) -> Path:
        return self.files / "input"

    @property
    def temp(self) -> Path:
        """ComfyUI makes `temp` below what --temp-directory names."""
        return self.files / "temp" / "temp"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def argv(self, *more: str) -> list[str]:
        paths = self.folder / "paths.yaml"
        paths.write_text(f"tests:\n  custom_nodes: {NODES}\n")
        return [
            *(self.python, "main.py", "--cpu", "--disable-auto-launch", "--listen", "127.0.0.1"),
            *("--port", str(self.port), "--output-directory", str(self.output)),
            *("--temp-directory", str(self.files / "temp"), "--input-directory", str(self.input)),
            *("--user-directory", str(self.files / "user")),
            *("--database-url", f"sqlite:///{self.folder}/comfyui.db", "--extra-model-paths-config", str(paths)),
            *more,
        ]

    def launch(self, *more: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start it, and do not wait."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv(*more), cwd=self.checkout, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )
        return self.process

    def start(self, *more: str, env: Mapping[str, str] | None = None) -> None:
        process = self.launch(*more, env=env)
        deadline = time.monotonic() + START_S
        while not self.answers():
            assert process.poll() is None, self.log[-4000:]
            assert time.monotonic() < deadline, self.log[-4000:]
            time.sleep(0.05)

    def answers(self) -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            self.get("/system_stats")
            return True
        return False

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return msgspec.json.decode(answer.read())

    def stop(self) -> None:
        """End the process that this one started."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process is not None:
            self.process.wait()


@contextlib.contextmanager
def running(service: ComfyService, *more: str) -> Iterator[ComfyService]:
    try:
        service.start(*more)
        yield service
    finally:
        service.stop()


def this_python() -> str:
    return sys.executable
