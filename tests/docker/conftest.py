"""One Docker Engine of our own for each process of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_support import Engine, own_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Holds the base image (docker_support.BASE). Shared: a test removes what it made, and asks only for its own."""
    with own_engine() as made:
        yield made
