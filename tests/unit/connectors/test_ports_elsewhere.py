"""Where somebody listens on a port, told to who asks at 127.0.0.1 in vain."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from yarl import URL

from emp_orch.connectors.http.client import gone
from emp_orch.host import ports


@pytest.mark.parametrize(
    ("address", "said"), [("::1", "it listens on [::1]:{}, not on 127.0.0.1"), ("127.0.0.1", ""), ("0.0.0.0", "")]
)
def test_listeners_on_other_addresses_are_named(address: str, said: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert ports.elsewhere(port) == said.format(port)
    assert ports.elsewhere(port) == ""


async def test_a_worker_says_it_of_its_service() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(f"http://127.0.0.1:{port}/")
        told = gone(URL(f"http://127.0.0.1:{port}"), caught.value).error.message
        assert told.endswith(f"; it listens on [::1]:{port}, not on 127.0.0.1")
        assert "listens" not in gone(URL(f"http://far.example:{port}"), caught.value).error.message
