"""The docker command, as far as images need it: ask, list, build. `engine` is a URL; None: what DOCKER_HOST says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from emp_orch.errors import EmpError, Unreachable
from emp_orch.proxies import for_engine

ANSWER_S = 60.0
# A base may have to be pulled.
PULL_S = 1800.0


class Docker:
    """One engine. Every method raises Unreachable when docker is missing or does not answer."""

    def __init__(self, engine: str | None = None) -> None:
        self._engine = engine
        self._environ = for_engine(engine or "", os.environ)
        self._argv = ["docker", *(["--host", engine] if engine else [])]

    def check(self) -> str:
        """The version of the engine."""
        return self._run("version", "--format", "{{.Server.Version}}").strip()

    def image(self, name: str) -> dict[str, Any] | None:
        """`docker image inspect`; None when the engine does not have it."""
        done = self._do("image", "inspect", name)
        if done.returncode != 0:
            self.check()
            return None
        found = json.loads(done.stdout)
        return dict(found[0]) if found else None

    def images(self, label: str) -> list[dict[str, Any]]:
        """`docker image ls`, with its words for the columns, of all images that have the label."""
        lines = self._run("image", "ls", "--filter", f"label={label}", "--format", "{{json .}}").splitlines()
        return [json.loads(line) for line in lines if line]

    def python(self, image: str, program: str) -> str:
        """What `program` prints under the python3 of `image`, which is pulled when it is not there."""
        argv = ("run", "--rm", "--network", "none", "--entrypoint", "python3", image, "-I", "-c", program)
        done = self._do(*argv, timeout_s=PULL_S)
        if done.returncode != 0:
            self.check()
            raise EmpError(
                f"python3 does not run in the base {image}: {_last(done.stderr)}",
                hint="name a base that has Python: --base python:3.12-slim",
            )
        return done.stdout

    def build(self, context: Path, *, tag: str, arguments: dict[str, str], labels: dict[str, str]) -> None:
        """`docker build`, its output going where ours goes."""
        argv = [*self._argv, "build", "--tag", tag]
        for name, value in arguments.items():
            argv += ["--build-arg", f"{name}={value}"]
        for name, value in labels.items():
            argv += ["--label", f"{name}={value}"]
        # docker's progress is for whoever waits: stderr, as all progress.
        done = subprocess.run([*argv, str(context)], stdin=subprocess.DEVNULL, stdout=2, check=False, env=self._environ)
        if done.returncode != 0:
            raise EmpError(f"docker build ended with {done.returncode}", hint="its last lines above say why")

    def _do(self, *args: str, timeout_s: float = ANSWER_S) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self._argv, *args],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                env=self._environ,
            )
        except FileNotFoundError:
            raise Unreachable(
                "the docker command is not installed", hint="https://docs.docker.com/engine/install/"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{self._name} did not answer for {timeout_s:g} s", hint="is it overloaded?") from None

    def _run(self, *args: str) -> str:
        done = self._do(*args)
        if done.returncode != 0:
            raise Unreachable(
                f"{self._name} does not answer: {_last(done.stderr)}",
                hint="is it running, may you use it, and does DOCKER_HOST or --host name it?",
            )
        return done.stdout

    @property
    def _name(self) -> str:
        return f"the Docker Engine at {self._engine}" if self._engine else "the Docker Engine"


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"
