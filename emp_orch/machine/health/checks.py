"""The ways to ask a program whether it works: an HTTP GET, a connection, a command of the user's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp

from emp_orch.fleet.desired.values import DesiredProgram
from emp_orch.fleet.model.fleet import Health
from emp_orch.host import ports
from emp_orch.host.ports import LOOPBACK
from emp_orch.machine.health.check_command import Commands

# Asks once: "" when all is well, else what is wrong, in one line.
Check = Callable[[], Awaitable[str]]
# Where a port alone is: a service of this machine may listen on either.
_LOOPBACKS = (LOOPBACK, "::1")


def check_of(program: DesiredProgram, session: aiohttp.ClientSession, commands: Commands) -> Check | None:
    """How to ask `program`; None when emp.yaml does not say."""
    health = program.health
    if health is None:
        return None
    if health.command:
        return lambda: commands.run(program, health.command, health.timeout_s)
    if health.tcp:
        return lambda: _tcp(health)
    port = program.port
    return None if port is None else lambda: _http(session, port, health)


async def _http(session: aiohttp.ClientSession, port: int, health: Health) -> str:
    """A 2xx or 3xx is well. Only by the address that workers go to."""
    url = f"http://{LOOPBACK}:{port}{health.http}"
    try:
        timeout = aiohttp.ClientTimeout(total=health.timeout_s)
        async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
            return "" if answer.status < 400 else f"{url} answered {answer.status}"
    except TimeoutError:
        return f"{url} did not answer within {health.timeout_s:g} s"
    except aiohttp.ClientConnectorError as e:
        place = await asyncio.to_thread(ports.elsewhere, port)
        return f"{url}: {place or e}"
    except (aiohttp.ClientError, OSError) as e:
        return f"{url}: {e}"


async def _tcp(health: Health) -> str:
    """That somebody accepts a connection is well."""
    host, _, number = health.tcp.rpartition(":")
    try:
        port = urlsplit(f"//h:{number}").port or 0
    except ValueError:
        port = 0
    if port == 0:
        return f"{number} is no port"
    hosts = (host.strip("[]"),) if host else _LOOPBACKS
    where = f"{host or 'port'}{':' if host else ' '}{port}"
    refused = ""
    try:
        async with asyncio.timeout(health.timeout_s):
            for one in hosts:
                try:
                    _, writer = await asyncio.open_connection(one, port)
                except OSError as e:
                    refused = refused or (os.strerror(e.errno) if e.errno and e.errno > 0 else str(e))
                    continue
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
                return ""
    except TimeoutError:
        return f"{where} did not accept a connection within {health.timeout_s:g} s"
    place = "" if host else await asyncio.to_thread(ports.elsewhere, port)
    return f"{where}: {place or refused}"
