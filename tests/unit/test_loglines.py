"""Lines of a daemon that writes many: gathered while nothing is wrong, and never lost."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys

import pytest

from emp_orch.loglines import log_handler


class Written(io.StringIO):
    """Counts what would wake the reader of a pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.fixture
def log_and_stream() -> tuple[logging.Logger, Written]:
    handler, stream = log_handler(gather=True), Written()
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    log = logging.Logger("gathered")
    log.addHandler(handler)
    return log, stream


def test_lines_of_one_moment_are_one_write(log_and_stream: tuple[logging.Logger, Written]) -> None:
    log, stream = log_and_stream

    async def say() -> None:
        for n in range(5):
            log.info("line %d", n)
        assert stream.writes == []
        while not stream.writes:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(say(), 60))
    assert len(stream.writes) == 1
    assert [line[-6:] for line in stream.getvalue().splitlines()] == [f"line {n}" for n in range(5)]


def test_a_warning_goes_out_at_once_behind_what_waits(log_and_stream: tuple[logging.Logger, Written]) -> None:
    log, stream = log_and_stream

    async def say() -> None:
        log.info("before")
        log.warning("now")
        assert [line.rsplit(" ", 1)[1] for line in stream.getvalue().splitlines()] == ["before", "now"]

    asyncio.run(say())


def test_without_a_loop_nothing_waits(log_and_stream: tuple[logging.Logger, Written]) -> None:
    log, stream = log_and_stream

    async def say() -> None:
        log.info("in the loop, which ends at once")

    asyncio.run(say())
    log.info("after it")
    assert len(stream.getvalue().splitlines()) == 2


def test_what_waits_at_the_end_of_the_process_is_written() -> None:
    code = (
        "import asyncio, logging\n"
        "from emp_orch.loglines import log_handler\n"
        "logging.basicConfig(handlers=[log_handler(gather=True)], level=logging.INFO)\n"
        "async def main(): logging.info('the last word')\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr.strip().endswith("the last word")
