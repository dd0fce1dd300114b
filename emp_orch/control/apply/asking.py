"""What a person asks of the reconciler from a terminal: put before it, and waited for."""

from __future__ import annotations

from emp_orch import settings as settings_files
from emp_orch.errors import EmpError
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.fleet import requests
from emp_orch.store.fleet.events import Events
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys


async def asked(layout: Layout, request: requests.Request) -> int:
    """Returns once the reconciler has done it: when it was asked, in ms by Redis' clock. Raises EmpError with its words
    where it refuses. Waits for as long as nobody answers: the caller bounds it.
    """
    settings = settings_files.load(layout)
    keys = Keys(settings.prefix)
    async with client.connected(settings.redis_url, owner=settings.redis_owner) as r:
        events = Events(r, keys)
        after = await events.latest_id()
        seal = SigningKey(layout, settings.fleet).control()
        request_id = await requests.ask(r, keys, settings.fleet, request, seal)
        async for batch in events.follow(after):
            for event in batch:
                if event.type == "request_done" and event.data.get("request_id") == request_id:
                    if not event.data.get("ok"):
                        raise EmpError(str(event.data.get("error")))
                    return int(request_id.partition("-")[0])
    raise AssertionError("events are followed for ever")
