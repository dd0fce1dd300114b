"""The fixtures of the HTTP rooms and of workers."""

from support.http.fixtures import api, http_stack, new_http_stack, producer
from support.worker.fixtures import r, server, stage

__all__ = ["api", "http_stack", "new_http_stack", "producer", "r", "server", "stage"]
