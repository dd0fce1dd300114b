"""Whose a listening socket is, as the kernel tells it."""

from __future__ import annotations

import os
import socket

import pytest

from emp_orch.host.ports import StrangersPort, refuse_strangers

SOMEBODY = 12_345
NOBODY = 65_534


@pytest.mark.parametrize(("listens", "asked"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1")])
def test_ones_own_server_is_taken_for_it(listens: str, asked: str) -> None:
    with socket.create_server((listens, 0), family=socket.AF_INET6 if ":" in listens else socket.AF_INET) as server:
        refuse_strangers(asked, server.getsockname()[1], os.geteuid())


def test_anothers_is_refused_by_its_user() -> None:
    before = os.geteuid()
    uid = before or NOBODY  # root's server is taken by everybody
    os.seteuid(uid)  # a socket is its maker's
    try:
        server = socket.create_server(("127.0.0.1", 0))
    finally:
        os.seteuid(before)
    with server, pytest.raises(StrangersPort, match=f"uid {uid}"):
        refuse_strangers("127.0.0.1", server.getsockname()[1], SOMEBODY)


def test_where_nobody_listens_or_the_host_is_another_nothing_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refuse_strangers("redis.example.com", port, SOMEBODY)
        refuse_strangers("192.0.2.1", port, SOMEBODY)
    refuse_strangers("127.0.0.1", port, SOMEBODY)
