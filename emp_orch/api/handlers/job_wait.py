"""A job's end, awaited by the request that submitted it: `POST /api/jobs?wait=SECONDS`."""

from __future__ import annotations

import asyncio

from emp_orch.api.context import Context
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import ENDED

MAX_WAIT_S = 300


async def until_ended(ctx: Context, job_id: str, within_s: float) -> Job | None:
    """The job when it has ended; None when it had not within `within_s`, or the API stops.

    The job is read at first, and again only when an event says that it ended or that events were lost.
    """
    with ctx.hub.subscribe(live=False) as subscription:
        try:
            async with asyncio.timeout(within_s):
                while not subscription.closed:
                    job = await ctx.queue.get(job_id)
                    if job.status in ENDED:
                        ctx.ended.keep(job)
                        return job
                    ended = False
                    while not (ended or subscription.closed):
                        frames = await subscription.take(within_s)
                        about = (f.job for f in frames)
                        ended = subscription.lost or any(j and j.job_id == job_id and j.status in ENDED for j in about)
                    if subscription.lost:
                        subscription.restart()
        except TimeoutError:
            pass
        return None
