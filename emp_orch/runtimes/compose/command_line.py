"""The docker command line, told of one engine: `docker compose` for what one file describes, `docker` for people."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from emp_orch.errors import EmpError
from emp_orch.host.proxies import for_engine
from emp_orch.runtimes.compose.connection import EngineAway, hint_for, named
from emp_orch.settings import EngineAddress

# Of what `docker compose` printed, the end is shown.
SHOWN_LINES = 6
# `docker compose up` may have to pull an image.
COMPOSE_S = 900.0


def compose(host: EngineAddress, file: Path, project: str, words: Sequence[str]) -> None:
    """Run `docker compose` on `file`. Raises EmpError with what it said."""
    argv = [*command(host), "compose", "-p", project, "-f", str(file), "--ansi", "never", *words]
    try:
        ran = subprocess.run(  # argv, no shell
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMPOSE_S,
            check=False,
            env=environment(host),
        )
    except subprocess.TimeoutExpired:
        raise EngineAway(f"{named(host)}: `docker compose {words[0]}` took more than {COMPOSE_S:.0f} s") from None
    if ran.returncode == 0:
        return
    said = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
    if any("'compose' is not a docker command" in line or "unknown shorthand flag" in line for line in said):
        raise EmpError("docker has no `compose` command here", hint="install the Compose plugin, version 2.17 or newer")
    if any("Cannot connect to the Docker daemon" in line for line in said):
        raise EngineAway(f"{named(host)} does not answer", hint=hint_for(host))
    what = "; ".join(said[-SHOWN_LINES:]) or f"exit {ran.returncode}"
    raise EmpError(f"{named(host)}: `docker compose {' '.join(words)}` failed: {what}")


def environment(host: EngineAddress) -> dict[str, str]:
    """For `command`."""
    return for_engine(host.url, os.environ)


def command(host: EngineAddress) -> list[str]:
    """The docker command line, told of this engine: its address and TLS files. Raises EmpError without one."""
    docker_cli = shutil.which("docker")
    if docker_cli is None:
        raise EmpError("there is no `docker` on PATH", hint="install the Docker command line and its Compose plugin")
    tls = host.ca or host.cert
    files = {"--tlscacert": host.ca, "--tlscert": host.cert, "--tlskey": host.key}
    options = ["--tlsverify", *(w for k, v in files.items() if v for w in (k, v))] if tls else []
    return [docker_cli, "-H", host.url, *options]
