"""One Docker Engine of our own for each process of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.docker.engine import Engine, load_machine, own_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Holds the base image (engine.BASE). Shared: a test removes what it made, and asks only for its own."""
    with own_engine() as made:
        yield made


@pytest.fixture(scope="session")
def machine_image(engine: Engine) -> str:
    """The name of emp's machine image, as this source makes it; `engine` has it."""
    return load_machine(engine)
