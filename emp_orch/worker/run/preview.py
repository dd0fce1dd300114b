"""The latest picture of one run, published while somebody looks at the job."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from emp_orch.jobs.document.preview import Preview, is_shown
from emp_orch.store.artifacts.previews import Previews
from emp_orch.worker.away import AWAY

log = logging.getLogger("emp.worker")

# Pictures a second at most, for all who look.
EVERY_S = 0.5
# How often is asked whether somebody looks, once there is a picture. A run without one asks nothing.
LOOK_S = 1.0


class Showing:
    """`take` costs nothing; `run` asks Redis once a second, and sends a picture only where it is wanted.

    `previews` None: nobody can look.
    """

    def __init__(self, previews: Previews | None, job_id: str) -> None:
        self._previews = previews
        self._job_id = job_id
        self._latest: Preview | None = None
        self._new = asyncio.Event()

    async def take(self, content_type: str, picture: bytes) -> None:
        """The run looks like this by now. What cannot be shown is dropped."""
        preview = Preview(content_type=content_type, data=bytes(picture))
        if self._previews is not None and is_shown(preview):
            self._latest = preview
            self._new.set()

    async def run(self) -> NoReturn:
        """Show the latest, for ever. Redis that is away costs pictures, nothing else."""
        await self._new.wait()
        watched, previews = 0, self._previews
        while True:
            try:
                watched = await self._show(previews, watched) if previews else 0
            except AWAY as e:
                log.debug("a preview of job %s was not shown: %s", self._job_id, e)
                watched = 0
            await asyncio.sleep(EVERY_S if watched else LOOK_S)

    async def _show(self, previews: Previews, before: int) -> int:
        """How many look. Who came since `before` is shown the latest, also when it is not new."""
        watched = await previews.watchers(self._job_id)
        if self._latest is not None and watched and (self._new.is_set() or watched > before):
            self._new.clear()
            await previews.publish(self._job_id, self._latest)
        return watched
