"""Who listens on this host: the kernel's own answer, and what its tables say, are the same."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import ExitStack

import pytest

from emp_orch.host.listening import Listening, by_kernel, by_table, listening_sockets, told_by


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


# As sock_diag(7) has it: length, type, flags, number, sender; then family, state, ports, addresses, user, inode.
TOLD, ERROR, DONE = 20, 2, 3


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = 16 + len(body) if length is None else length
    return struct.pack("=IHHII", size, kind, 0, 1, 0) + body


def one(family: int = socket.AF_INET, port: int = 80) -> bytes:
    address = socket.inet_aton("127.0.0.1").ljust(16, b"\0")
    ends = struct.pack("!HH", port, 0) + address + bytes(16)
    return struct.pack("=BBBB", family, 10, 0, 0) + ends + bytes(4 + 8 + 12) + struct.pack("=II", 1_000, 7)


def test_an_answer_is_read_to_its_last_message() -> None:
    more = message(TOLD, one(port=80)) + message(TOLD, one(port=81))
    assert told_by(more) == ([Listening("127.0.0.1", 80, 1_000, 7), Listening("127.0.0.1", 81, 1_000, 7)], False)
    done = message(TOLD, one()) + message(DONE, bytes(4)) + message(TOLD, one())
    assert told_by(done) == ([Listening("127.0.0.1", 80, 1_000, 7)], True)
    assert told_by(message(1, b"")) == ([], False)  # NLMSG_NOOP


@pytest.mark.parametrize(
    "answer",
    [
        message(TOLD, one(), length=0),  # it would be read for ever
        message(TOLD, one(), length=15),
        message(TOLD, one(), length=2**32 - 1),
        message(TOLD, one())[:-1],
        message(TOLD, one()[:20]),
        message(TOLD, one()) + b"\x10",
        message(ERROR, b""),
        message(TOLD, one(family=255)),
    ],
    ids=["none", "less than a header", "beyond", "cut off", "short", "half a header", "no number", "no family"],
)
def test_an_answer_that_is_none_is_an_error_and_the_tables_are_read(answer: bytes) -> None:
    with pytest.raises(OSError, match="sock_diag") as refused:
        told_by(answer)
    assert refused.value.errno == errno.EPROTO


def test_the_kernels_own_error_is_said() -> None:
    with pytest.raises(OSError, match="sock_diag") as refused:
        told_by(message(ERROR, struct.pack("=i", -errno.ENOENT)))
    assert refused.value.errno == errno.ENOENT
