"""The fixtures of the HTTP rooms and of workers."""

from http_fixtures import api, http_stack, new_http_stack, producer
from worker_fixtures import r, server, stage

__all__ = ["api", "http_stack", "new_http_stack", "producer", "r", "server", "stage"]
