"""The HTTP rooms' fixtures."""

from http_fixtures import api, http_stack, new_http_stack, producer

__all__ = ["api", "http_stack", "new_http_stack", "producer"]
