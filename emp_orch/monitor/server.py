"""The monitor process: the page's files, and the API under the same origin, so that a strict CSP suffices."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.typedefs import Middleware

from emp_orch import __version__
from emp_orch.host import sessions
from emp_orch.monitor.proxy import Proxy, is_api_call
from emp_orch.monitor.static_files import StaticFile, load
from emp_orch.settings import Settings
from emp_orch.web.errors import Handler, Refused, errors_as_json
from emp_orch.web.guard import Guard, guarded, is_loopback, local_origins, require_token
from emp_orch.web.serve import listening, until_told_to_stop

log = logging.getLogger(__name__)

# The API has its own, smaller bound and says so.
MAX_BODY_BYTES = 8 * 1024 * 1024

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@web.middleware
async def _secured(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if not response.prepared:
        response.headers.update(SECURITY_HEADERS)
    return response


def _serving(files: dict[str, StaticFile]) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        file = files.get(request.path)
        if file is None:
            raise Refused(404, f"there is no {request.path}")
        headers = {"Cache-Control": "no-cache", "ETag": file.etag}
        if request.headers.get("If-None-Match") == file.etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers={**headers, "Content-Type": file.content_type})

    return serve


def build_app(settings: Settings, proxy: Proxy) -> web.Application:
    guard = Guard(
        loopback=is_loopback(settings.monitor.host),
        token=settings.monitor.token,
        origins=local_origins(settings.monitor.port) if is_loopback(settings.monitor.host) else frozenset(),
        # The page's own files hold no secret; it asks for the token itself.
        is_open=lambda request: not is_api_call(request) or request.path == "/health",
    )
    middlewares: list[Middleware] = [_secured, errors_as_json((), str), guarded(guard)]
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=middlewares)
    serve = _serving(load(role=settings.monitor.role))

    async def route(request: web.Request) -> web.StreamResponse:
        if is_api_call(request):
            return await proxy.handle(request)
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, f"{request.method} is not allowed for {request.path}", headers={"Allow": "GET, HEAD"})
        return await serve(request)

    app.router.add_route("*", "/{path:.*}", route)
    return app


async def run(settings: Settings) -> None:
    """Serve until SIGTERM. Raises UsageError without a token beyond loopback, EmpError when the port is taken."""
    listen = settings.monitor
    require_token("monitor", listen.host, listen.token)
    # The API compresses nothing, and its bytes are passed on untouched.
    async with sessions.to_own(settings.uid, limit=0, auto_decompress=False) as session:
        proxy = Proxy(session, settings.api, own_token=listen.token is not None, role=listen.role)
        async with listening(build_app(settings, proxy), what="monitor", host=listen.host, port=listen.port):
            log.info(
                "emp monitor %s on %s: fleet %s, API %s", __version__, listen.url, settings.fleet, settings.api.url
            )
            await until_told_to_stop()
            log.info("stopping")
            await proxy.close()
