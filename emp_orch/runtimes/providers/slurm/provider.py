"""The provider `slurm`: sbatch, squeue, scancel and scontrol, as the user that the control plane runs as."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Sequence

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.options.provider_slurm import options_of
from emp_orch.runtimes.providers.base import Launch, Making, ProviderError
from emp_orch.runtimes.providers.slurm import jobs, script
from emp_orch.runtimes.providers.slurm.jobs import Job
from emp_orch.runtimes.providers.slurm.tools import Said, call, failed

# What scancel says of a job that is not there any more, or that is ending: that is what was asked for.
_GONE = ("Invalid job id", "already completing or completed", "Job/step already")


class SlurmProvider:
    """One job a member. What was asked for stands in Slurm, also when a leader goes. Slurm lists a job for some minutes
    after its end, and nobody can make it forget one: what was given back is kept here, and its end is not told. Who
    does not know that any more is told, and gives it back once more.
    """

    def __init__(self, making: Making) -> None:
        self._fleet = making.fleet
        self._pool = making.pool
        self._options = options_of(making.options)
        self._one = asyncio.Lock()
        self._given_back: set[MachineId] = set()

    async def boxes(self) -> tuple[Box, ...]:
        found = jobs.boxes_of(await self._jobs(), self._fleet, self._pool)
        self._given_back &= {box.member_id for box in found}
        return tuple(b for b in found if b.state is not BoxState.ENDED or b.member_id not in self._given_back)

    async def create(self, launch: Launch) -> None:
        if launch.volumes and not (self._options.apptainer or self._options.pyxis):
            raise ProviderError("volumes need the option container: a job sees its node's own folders")
        async with self._one:
            self._given_back.discard(launch.member_id)
            if await self._living(launch.member_id):
                return
            # Slurm keeps it for slurmctld's user and the job's own only, and gives it to the job at a requeue too.
            fd = os.memfd_create("emp-box")
            try:
                os.write(fd, script.environment(launch))
                os.lseek(fd, 0, os.SEEK_SET)
                argv = script.submission(launch, self._options, fd)
                said = await self._call(argv, given=script.script(launch, self._options), fds=(fd,))
            finally:
                os.close(fd)
        if said.code != 0:
            raise failed("sbatch", said)

    async def remove(self, member_id: MachineId, *, stop_s: float) -> None:
        """The batch script drains by SIGTERM; it ends its box by force itself, and the job's end is brought forward, so
        that Slurm does where the script cannot. scancel alone would leave KillWait, half a minute, for all of it.
        """
        async with self._one:
            if living := [str(job.job_id) for job in await self._living(member_id)]:
                await self._end(living, stop_s)
            self._given_back.add(member_id)

    async def _end(self, living: list[str], stop_s: float) -> None:
        await self._told(["scancel", "--state=PENDING", *living])
        if stop_s <= 0:
            await self._told(["scancel", *living])
            return
        await self._told(["scancel", "--state=RUNNING", "--signal=TERM", "--batch", *living])
        for job in living:
            # Not all versions let a user do it, and a job may have ended: the script has the same deadline.
            end = f"EndTime=now+{math.ceil(stop_s) + script.FORCED_S}seconds"
            await self._call(["scontrol", "update", f"JobId={job}", "Requeue=0", end])

    async def watch(self, changed: Callable[[], None]) -> None:  # Slurm tells nothing by itself
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        return

    async def _living(self, member_id: MachineId) -> list[Job]:
        name = jobs.name_of(self._fleet, member_id)
        return [job for job in await self._jobs() if job.name == name and job.state is not BoxState.ENDED]

    async def _call(self, argv: Sequence[str], *, given: bytes = b"", fds: tuple[int, ...] = ()) -> Said:
        return await call(argv, conf=self._options.conf, given=given, fds=fds)

    async def _told(self, argv: list[str]) -> None:
        said = await self._call(argv)
        if said.code != 0 and said.words and not any(words in said.words for words in _GONE):
            raise failed("scancel", said)

    async def _jobs(self) -> tuple[Job, ...]:
        """This user's jobs, those that ended lately too."""
        said = await self._call(jobs.LIST_JSON)
        if said.code == 0:
            return jobs.in_json(said.out, os.getuid())
        if "json" not in said.words.lower() and "serializer" not in said.words.lower():
            raise failed("squeue", said)
        said = await self._call(jobs.LIST_TEXT)
        if said.code != 0:
            raise failed("squeue", said)
        return jobs.in_text(said.out, os.getuid())
