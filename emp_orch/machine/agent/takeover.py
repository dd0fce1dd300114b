"""Takes over another configuration in place: what did not change runs on untouched."""

from __future__ import annotations

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import secrets_of
from emp_orch.fleet.model.observed import MachineStatus
from emp_orch.machine.agent.parts import Parts
from emp_orch.machine.agent.report import SelfReport
from emp_orch.machine.agent.start_up import StartUp
from emp_orch.machine.boot.sequence import announced_by
from emp_orch.store.fleet.configs import MachineConfig


class Takeover:
    """Of what the reconciler writes for this machine in Redis."""

    def __init__(self, parts: Parts, report: SelfReport, start_up: StartUp) -> None:
        self._parts = parts
        self._report = report
        self._start_up = start_up

    async def apply(self) -> None:
        """Take over the configuration that the reconciler wrote. Raises EmpError."""
        config = await self._written()
        if config is None:
            raise EmpError(f"there is no configuration for {self._parts.kept.machine.id} in Redis")
        await self._take_over(config)

    async def catch_up(self) -> None:
        """Take over a configuration that was written while nobody here listened. Raises EmpError."""
        config, mine = await self._written(), self._parts.kept.config
        # One that joined may know more than was ever written for it.
        if config is None or (self._parts.renewal is not None and config.generation < mine.generation):
            return
        if (config.digest, config.generation) != (mine.digest, mine.generation):
            await self._take_over(config)

    async def fetch_secrets(self, config: MachineConfig) -> None:
        """On a box that joined nobody else puts the values that its programs name; they may have changed."""
        if self._parts.renewal is not None and secrets_of(config.machine):
            await self._parts.renewal.renew()

    async def _written(self) -> MachineConfig | None:
        parts = self._parts
        return await parts.trust.config(parts.r, parts.keys, parts.kept.config)

    async def _take_over(self, config: MachineConfig) -> None:
        await self.fetch_secrets(config)
        await self._start_up.end()
        try:
            self._parts.folder.write_files(config)
            added, changed, removed = await self._start_up.reload()
            self._parts.folder.keep_config(config)
            await self._forget_health(config)
            if added or changed or removed:
                # No report may say that it is ready with a configuration that it is still taking over.
                self._report.set_status(MachineStatus.CONFIGURING, "")
            self._parts.kept.config = config
            self._parts.packages.want(config.package)
            self._forget({*added, *changed, *removed}, {*changed, *removed})
            await self._parts.watch.refresh_all()
        except EmpError:
            self._start_up.begin()  # with the configuration in force
            raise
        self._start_up.begin()

    async def _forget_health(self, config: MachineConfig) -> None:
        """What the old check said is no answer to a new one, in no report that names the new generation."""
        for program in config.machine.programs:
            old = self._parts.kept.machine.program(program.name)
            if old is not None and old.health != program.health:
                await self._parts.programs.set_health(program.name, None, "")

    def _forget(self, touched: set[str], replaced: set[str]) -> None:
        """What the old program did says nothing of the new one; what starts anew is announced again."""
        kept = self._parts.kept
        again = announced_by(touched)
        names = {p.name for p in kept.machine.programs}
        kept.remember(
            announced=tuple(k for k in kept.state.announced if k not in again),
            stopped=tuple(n for n in kept.state.stopped if n in names),
        )
        kept.remember_ends({n: e for n, e in self._parts.programs.ends_ms.items() if n not in replaced})
        self._parts.last_exits.keep_only(names - replaced)
