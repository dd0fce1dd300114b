"""Who listens on this host: the kernel's own answer, and what its tables say, are the same."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest

from emp_orch.host.listening import Listening, by_kernel, by_table, listening_sockets


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_socket_that_listens_is_told_with_its_address_and_user(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port, inode = server.getsockname()[1], os.fstat(server.fileno()).st_ino
        wanted = Listening(address, port, os.geteuid(), inode)
        for found in (by_kernel(family), by_table(), listening_sockets()):
            assert [one for one in found if one.port == port] == [wanted]
    assert [one for one in listening_sockets() if one.inode == inode] == []


def test_connections_do_not_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as open_:
        port = server.getsockname()[1]
        for _ in range(50):
            open_.enter_context(socket.create_connection(("127.0.0.1", port)))
            open_.enter_context(server.accept()[0])
        for found in (by_kernel(socket.AF_INET), list(by_table())):
            assert len([one for one in found if one.port == port]) == 1


def test_more_than_one_answer_of_the_kernel_holds() -> None:
    with ExitStack() as open_:
        made = [open_.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(400)]
        ports = {server.getsockname()[1] for server in made}
        assert ports <= {one.port for one in by_kernel(socket.AF_INET)}
        assert ports <= {one.port for one in by_table()}
