"""The docker command, as far as images need it: ask, list, build. `engine` is a URL; None: what DOCKER_HOST says."""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from pathlib import Path
from typing import Any

from emp_orch.errors import EmpError, Unreachable
from emp_orch.host.proxies import for_engine

ANSWER_S = 60.0
# A base may have to be pulled.
BASE_PULL_S = 1800.0
# Of what a build says, the end is searched for why it failed.
LAST_LINES = 40


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

    def images(self, which: str) -> list[dict[str, Any]]:
        """`docker image ls`, with its words for the columns, of all images that the filter `which` finds."""
        lines = self._run("image", "ls", "--no-trunc", "--filter", which, "--format", "{{json .}}").splitlines()
        return [json.loads(line) for line in lines if line]

    def python(self, image: str, program: str) -> str:
        """What `program` prints under the python3 of `image`, which is pulled when it is not there."""
        argv = ("run", "--rm", "--network", "none", "--entrypoint", "python3", image, "-I", "-c", program)
        done = self._do(*argv, timeout_s=BASE_PULL_S)
        if done.returncode != 0:
            self.check()
            raise EmpError(
                f"python3 does not run in the base {image}: {reason(done.stderr)}",
                hint="name a base that has Python: --base python:3.12-slim",
            )
        return done.stdout

    def build(
        self, context: Path, *, tag: str, arguments: dict[str, str], labels: dict[str, str], stage: str = ""
    ) -> None:
        """Build by buildx where that is, its output going where ours goes. What the older builder leaves without a name
        is removed: it has the label `stage` (NAME=VALUE).
        """
        buildx = self.has_buildx()
        # Its own builders may be containers, which see none of the engine's images.
        builder = ["buildx", "build", "--builder", self._builder(), "--load"] if buildx else ["build"]
        argv = [*self._argv, *builder, "--tag", tag]
        for name, value in arguments.items():
            argv += ["--build-arg", f"{name}={value}"]
        for name, value in labels.items():
            argv += ["--label", f"{name}={value}"]
        # An image of its own, not an index beside which statements about it lie.
        environ = {**self._environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        try:
            said = _shown([*argv, str(context)], environ)
        finally:
            if not buildx and stage:
                self._do("image", "prune", "--force", "--filter", f"label={stage}")
        if said is not None:
            raise EmpError(f"docker build of {tag} failed: {said}", hint="its lines above say more")

    def has_buildx(self) -> bool:
        return self._do("buildx", "version").returncode == 0

    def _builder(self) -> str:
        """The builder that is the engine itself: it is called as the context that names that."""
        if self._engine or os.environ.get("DOCKER_HOST"):
            return "default"
        done = self._do("context", "show")
        return done.stdout.strip() or "default"

    def used(self) -> set[str]:
        """The ids of the images that some container is made from, running or not."""
        ids = self._run("ps", "--all", "--quiet", "--no-trunc").split()
        if not ids:
            return set()
        return set(self._run("inspect", "--format", "{{.Image}}", *ids).split())

    def remove(self, image: str) -> bool:
        """Take a name from an image, which goes with its last; by an id, one without a name. False: it is in use."""
        return self._do("image", "rm", image).returncode == 0

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
                f"{self._name} does not answer: {reason(done.stderr)}",
                hint="is it running, may you use it, and does DOCKER_HOST or --host name it?",
            )
        return done.stdout

    @property
    def _name(self) -> str:
        return f"the Docker Engine at {self._engine}" if self._engine else "the Docker Engine"


def _shown(argv: list[str], environ: dict[str, str]) -> str | None:
    """Run a build, its progress going to stderr, as all progress; why it failed, None when it did not."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ
    ) as building:
        for line in building.stdout or ():
            os.write(2, line)
            last.append(line.decode(errors="replace"))
    return reason("".join(last)) if building.returncode else None


# Where docker only says how to ask for help.
_ADVICE = ("See '", "Run 'docker", "--------------------", "View build details")


def reason(text: str) -> str:
    """The line that says why docker did not do it."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(_ADVICE)]
    told = [line for line in lines if line.lower().startswith(("error", "docker: error", "docker: "))]
    return ([*lines[-1:], *told[-1:]] or ["it gave no reason"])[-1]
