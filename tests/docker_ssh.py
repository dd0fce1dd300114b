"""An sshd beside an engine of another host, which lets in one key: the way of `ssh://` hosts."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker_far import FarEngine
from docker_support import run, tools
from stack import until

PORT = 22


@contextmanager
def ssh_door(engine: FarEngine, name: str, folder: Path) -> Iterator[str]:
    """Let `ssh root@NAME` reach the engine's host; the PATH on which `ssh` knows the way, without a question."""
    folder.mkdir()
    for key in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    (folder / "sshd_config").write_text(_server(engine, folder))
    (folder / "known_hosts").write_text(f"{engine.address} {(folder / 'host.pub').read_text()}")
    (folder / "ssh_config").write_text(
        f"Host {name}\n"
        f"  HostName {engine.address}\n"
        f"  IdentityFile {folder}/user\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n"
        "  IdentitiesOnly yes\n"
    )
    commands = folder / "bin"
    commands.mkdir()
    config = shlex.quote(str(folder / "ssh_config"))
    (commands / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    (commands / "ssh").chmod(0o755)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    argv = [*engine.inside, str(shutil.which("sshd", path=tools()["PATH"])), "-D", "-e", "-f", f"{folder}/sshd_config"]
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log, env=tools())
    try:
        until("sshd listens", lambda: _answers(engine.address))
        yield f"{commands}{os.pathsep}{os.environ['PATH']}"
    finally:
        server.terminate()
        server.wait(30)


def _server(engine: FarEngine, folder: Path) -> str:
    """Strictly one key; `docker` finds the engine there as it would its socket."""
    to_engine = " ".join(
        f"{k}={engine.env[k]}" for k in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "PATH")
    )
    return (
        f"ListenAddress {engine.address}:{PORT}\n"
        f"HostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/user.pub\n"
        "AuthenticationMethods publickey\n"
        "PermitRootLogin prohibit-password\n"
        "StrictModes no\n"
        "UsePAM no\n"
        "PidFile none\n"
        f"SetEnv {to_engine}\n"
    )


def _answers(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, PORT)) == 0
