"""Services that wait for none start at once, however many there are."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from emp_orch.store.redis.client import Client
from support.machine.machine import Box, desired, sleeper
from support.redis.server import Server

COUNT = 50
# Far beyond the test: whoever waited for one to count as started would start the next after it.
START_S = 300.0


async def test_fifty_services_start_together(tmp_path: Path, r: Client, server: Server) -> None:
    box = Box(tmp_path, r, server.url)
    services = [structs.replace(sleeper(f"s{n}"), start_s=START_S) for n in range(COUNT)]
    try:
        await box.start(desired(*services))
        for service in services:
            report = await box.until_program(service.name, lambda p: p.pid != 0)
            assert report.state == "STARTING", f"{service.name} is {report.state}"
    finally:
        await box.stop()
