"""The fixtures of the HTTP rooms."""

from support.http.fixtures import http_stack, new_http_stack

__all__ = ["http_stack", "new_http_stack"]
