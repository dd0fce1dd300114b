"""Every error of an HTTP server in one form: `{"success": false, "error": …, "timestamp": …}`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from emp_orch.errors import EmpError, Unreachable, UsageError, WaitTimeout
from emp_orch.web.times import now_ms, rfc3339

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(EmpError):
    """A request that is answered with `status` and the message."""

    def __init__(self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = dict(headers or {})


def error_body(message: str) -> bytes:
    return msgspec.json.encode({"success": False, "error": message, "timestamp": rfc3339(now_ms())})


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    kept = {k: v for k, v in (headers or {}).items() if k.lower() not in ("content-type", "content-length")}
    return web.Response(status=status, body=error_body(message), content_type="application/json", headers=kept)


def status_of(error: EmpError) -> int:
    match error:
        case Refused():
            return error.status
        case Unreachable():
            return 503
        case UsageError():
            return 400
        case WaitTimeout():
            return 504
        case _:
            return 500


def _http_message(request: web.Request, e: web.HTTPException) -> str:
    match e.status:
        case 404:
            return f"there is no {request.path}"
        case 405:
            allowed = ", ".join(sorted(getattr(e, "allowed_methods", ())))
            return f"{request.method} is not allowed for {request.path}" + (f"; allowed: {allowed}" if allowed else "")
        case 413:
            return f"the request body is larger than {request.client_max_size} bytes"
        case _:
            return e.reason


def errors_as_json(transient: tuple[type[BaseException], ...], away: Callable[[BaseException], str]) -> Middleware:
    """A middleware that answers every error in the one form.

    An exception of `transient` is a 503 that says what `away` makes of it. Only an unforeseen one is logged with its
    traceback, and its answer names nothing of it.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as e:
            return error_response(e.status, _http_message(request, e), e.headers)
        except EmpError as e:
            message = f"{e.message}; {e.hint}" if e.hint else e.message
            return error_response(status_of(e), message, e.headers if isinstance(e, Refused) else None)
        except ConnectionResetError:
            raise  # the client has gone: nobody to answer
        except transient as e:
            return error_response(503, away(e), {"Retry-After": "1"})
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return error_response(500, "internal error; the server's log has the details")

    return middleware
