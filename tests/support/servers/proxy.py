"""A proxy that counts what it is asked, and serves what it is told; everything else it refuses with 502."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")


@dataclass
class CountingProxy:
    """`asked`: each request as `METHOD TARGET`; `logins`: what each said in Proxy-Authorization."""

    url: str
    asked: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    def environment(self, *, no_proxy: str = "") -> dict[str, str]:
        """Every proxy variable, in both cases."""
        named = dict.fromkeys(VARIABLES, self.url) | {"no_proxy": no_proxy}
        return {**named, **{name.upper(): value for name, value in named.items()}}


@contextmanager
def counting_proxy(pages: Mapping[str, bytes]) -> Iterator[CountingProxy]:
    """`pages`: what to answer by the whole URL that is asked for."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            proxy.asked.append(f"{self.command} {self.path}")
            proxy.logins.append(self.headers.get("Proxy-Authorization", ""))
            body = pages.get(self.path) if self.command == "GET" else None
            self.send_response(502 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_CONNECT = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy = CountingProxy(f"http://127.0.0.1:{server.server_address[1]}")
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            serving.join()
