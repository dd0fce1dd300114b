"""Listening, logging and an orderly end, alike for every server of emp."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from emp_orch.errors import EmpError
from emp_orch.loglines import log_handler, plain_records
from emp_orch.web.connections import CONNECTIONS, IDLE_S, connections, limit

access = logging.getLogger("emp.request")

# What a request may still take after SIGTERM.
SHUTDOWN_S = 2.0
# Of Linux (ip(7)); Python has no name for it before 3.14.
IP_FREEBIND = 15


def log_to_stderr() -> None:
    """Everything from INFO up as one line on stderr; supervisord puts it in the component's log file."""
    logging.basicConfig(handlers=[log_handler(gather=True)], level=logging.INFO, force=True)
    logging.Formatter.default_msec_format = "%s.%03d"
    plain_records()


def _raw_path(request: web.BaseRequest) -> str:
    """As it was sent: decoded, it could hold a newline."""
    return request.rel_url.raw_path


class _NoForeignWords(logging.Filter):
    """The library tells of a request that is no HTTP with a traceback that repeats it: a token may stand there."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(fault := record.exc_info[1], HttpProcessingError):
            record.msg, record.args = f"{record.getMessage()}: it is no HTTP ({type(fault).__name__})", None
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            record.exc_info = record.exc_text = None
        return True


def _server_log() -> logging.Logger:
    found = logging.getLogger("aiohttp.server")
    if not any(isinstance(one, _NoForeignWords) for one in found.filters):
        found.addFilter(_NoForeignWords())
    return found


class RequestLog(AbstractAccessLogger):
    """One line a request, without its query string: a token may stand there."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        level = logging.DEBUG if request.path in ("/health", "/ready", "/metrics") else logging.INFO
        access.log(
            level,
            "%s %s %s %.1f ms %s",
            request.method,
            _raw_path(request),
            response.status,
            time * 1000,
            request.remote,
        )


def _take_no_strange_expectations(server: web.Server) -> None:
    """Of what a client expects there is 100-continue; all else is no matter (RFC 9110 §10.1.1).

    The library refuses it in the client's own words, before any of our code, and cannot send those that are no text.
    """
    make = server.request_factory

    def made(message: RawRequestMessage, *more: Any) -> web.BaseRequest:
        if message.headers.get("Expect", "100-continue").lower() != "100-continue":
            kept = CIMultiDict((k, v) for k, v in message.headers.items() if k.lower() != "expect")
            message = message._replace(headers=CIMultiDictProxy(kept))
        return make(message, *more)

    server.request_factory = made


@asynccontextmanager
async def listening(
    app: web.Application, *, what: str, host: str, port: int, soon: bool = False
) -> AsyncIterator[None]:
    """Serve `app` until the block ends. `soon`: also on an address that this host does not have yet.

    Raises EmpError when the port is taken or may not be used.
    """
    if CONNECTIONS not in app:
        app[CONNECTIONS] = connections()
    runner = web.AppRunner(
        app,
        access_log_class=RequestLog,
        access_log=access,
        shutdown_timeout=SHUTDOWN_S,
        keepalive_timeout=IDLE_S,
        handle_signals=False,
        handler_cancellation=True,
        logger=_server_log(),
        auto_decompress=False,  # the library unpacks before anybody knows who calls, and without end
    )
    await runner.setup()
    if runner.server is not None:
        limit(runner.server, app[CONNECTIONS])
        _take_no_strange_expectations(runner.server)
    try:
        try:
            site = web.SockSite(runner, _bound(host, port)) if soon else web.TCPSite(runner, host, port)
            await site.start()
        except OSError as e:
            raise _cannot_listen(what, host, port, e) from e
        yield
    finally:
        await runner.cleanup()


def _bound(host: str, port: int) -> socket.socket:
    """A socket of the address, which needs not be there yet: that of a bridge comes with its engine."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _cannot_listen(what: str, host: str, port: int, e: OSError) -> EmpError:
    if e.errno == errno.EADDRINUSE:
        return EmpError(
            f"{what} cannot listen on {host}:{port}: the port is taken",
            hint=f"see who has it with `ss -ltnp 'sport = :{port}'`, or set another {what}.port in emp.yaml",
        )
    return EmpError(
        f"{what} cannot listen on {host}:{port}: {e.strerror or e}",
        hint=f"check {what}.host and {what}.port in emp.yaml",
    )


async def until_told_to_stop() -> None:
    """Returns at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    try:
        await stop.wait()
    finally:
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(sig)
