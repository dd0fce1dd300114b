"""What the simulations' tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def quiet() -> Iterator[None]:
    """What a hundred thousand rounds log is of no use to anybody."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
