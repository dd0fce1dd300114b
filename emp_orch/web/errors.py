"""Every error of an HTTP server in one form: `{"success": false, "error": …, "timestamp": …}`."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

from emp_orch.errors import Damaged, EmpError, Unreachable, UsageError, WaitTimeout
from emp_orch.web.times import now_ms, rfc3339

log = logging.getLogger(__name__)

# A part of a form whose headers are none; a chunk without its size.
_MALFORMED = (HttpProcessingError, web.RequestPayloadError)
_ANY_ENCODING = {"Accept-Encoding": "identity"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(EmpError):
    """A request that is answered with `status` and the message."""

    def __init__(self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = dict(headers or {})


def error_body(message: str) -> bytes:
    """`message` may repeat a header, and with it bytes that are no text."""
    message = message.encode("utf-8", "backslashreplace").decode()
    return msgspec.json.encode({"success": False, "error": message, "timestamp": rfc3339(now_ms())})


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    kept = {k: v for k, v in (headers or {}).items() if k.lower() not in ("content-type", "content-length")}
    if status == 503:
        kept.setdefault("Retry-After", "1")
    return web.Response(status=status, body=error_body(message), content_type="application/json", headers=kept)


def status_of(error: EmpError) -> int:
    match error:
        case Refused():
            return error.status
        case Unreachable():
            return 503
        case UsageError():
            return 400
        case Damaged():
            return 409  # RFC 9110, 15.5.10: the state of what was asked for; somebody can put it right
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


def _check_encoding(request: web.Request) -> None:
    packed = request.headers.get("Content-Encoding", "identity")
    if packed.lower() != "identity":
        raise Refused(415, f"a request body is not taken as {packed[:40]}: send it as it is", headers=_ANY_ENCODING)


def _is_text(request: web.Request) -> bool:
    """Whether all of the head is UTF-8: what is not comes as lone surrogates."""
    try:
        "".join(request.headers.values()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_file(request: web.Request, e: OSError) -> web.Response:
    """What the operating system says of a file; of one whose name a request made too long, that there is none."""
    if e.errno == errno.ENAMETOOLONG:
        return error_response(404, f"there is no {request.path[:200]}: a name in it is too long")
    log.error("%s %s: %s", request.method, request.path[:200], e)
    return error_response(500, f"a file of the server cannot be used: {e.strerror}; the server's log names it")


def errors_as_json(
    transient: tuple[type[BaseException], ...], away: Callable[[BaseException], str | EmpError]
) -> Middleware:
    """A middleware that answers every error in the one form.

    What is no HTTP, and is found to be none only while a body is read, is a 400 that repeats no word of it.
    An exception of `transient` is a 503 that says what `away` makes of it, or the error that this gives. Only an
    unforeseen one is logged with its traceback, and its answer names nothing of it.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_encoding(request)
            return await handler(request)
        except web.HTTPException as e:
            return error_response(e.status, _http_message(request, e), e.headers)
        except _MALFORMED as e:
            return error_response(400, f"the request cannot be read: {type(e).__name__}")
        except EmpError as e:
            message = f"{e.message}; {e.hint}" if e.hint else e.message
            return error_response(status_of(e), message, e.headers if isinstance(e, Refused) else None)
        except ConnectionResetError:
            raise  # the client has gone: nobody to answer
        except transient as e:
            if isinstance(e, OSError) and e.filename is not None:
                return _of_file(request, e)
            said = away(e)
            if isinstance(said, EmpError):
                return error_response(status_of(said), said.message)
            return error_response(503, said)
        except Exception as e:
            if isinstance(e, ValueError) and not _is_text(request):
                return error_response(400, "the request cannot be read: a header is no UTF-8")
            log.exception("%s %s failed", request.method, request.path)
            return error_response(500, "internal error; the server's log has the details")

    return middleware
