"""An sshd beside an engine of another host, which lets in one key: the way of `ssh://` hosts."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.docker.far import FarEngine
from support.host.debian import run, tools
from support.stack.stack import until

PORT = 22

# Passes bytes on after a while, both ways: the link to a host on another continent, and worse.
_SLOW = """
import asyncio, sys

async def later(source, sink, seconds, loop):
    while data := await source.read(65536):
        loop.call_later(seconds, sink.write, data)
    loop.call_later(seconds, sink.close)

async def main(host, port, seconds):
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(host, port)
    ours = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ours), sys.stdin)
    out, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    await asyncio.gather(later(ours, writer, seconds, loop), later(reader, out, seconds, loop))
    await asyncio.sleep(2 * seconds)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


def far_away(path: str, folder: Path, *, seconds: float) -> str:
    """A PATH like that of `ssh_door`, on which each word takes `seconds` to get there, and as long to come back."""
    commands = folder / f"slow-{seconds}"
    commands.mkdir()
    (folder / "slow.py").write_text(_SLOW)
    near = shutil.which("ssh", path=path)
    proxy = shlex.quote(f"ProxyCommand={sys.executable} {folder}/slow.py %h %p {seconds}")
    (commands / "ssh").write_text(f'#!/bin/sh\nexec {near} -o {proxy} "$@"\n')
    (commands / "ssh").chmod(0o755)
    return f"{commands}{os.pathsep}{path}"


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
