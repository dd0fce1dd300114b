"""The parts of an agent, one of each, and how they know each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emp_orch.fleet.model.observed import MachineReport
from emp_orch.machine.agent.kept import Kept
from emp_orch.machine.agent.link import Link
from emp_orch.machine.boot.join import Renewal
from emp_orch.machine.health.check_command import Commands
from emp_orch.machine.home import folder as folders
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.home.programs import Programs, packages_in_use
from emp_orch.machine.home.trust import Trust, read_key
from emp_orch.machine.observe.disk import Disk
from emp_orch.machine.observe.gpus import Gpus
from emp_orch.machine.observe.last_exits import LastExits
from emp_orch.machine.observe.programs import Watch
from emp_orch.machine.package.keep import Packages
from emp_orch.runtimes.process.supervisor import Supervisor
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`renewal` is that of a machine that joined by itself; `commands` are those of health checks."""

    folder: MachineFolder
    r: Client
    keys: Keys
    renewal: Renewal | None
    supervisor: Supervisor
    programs: Programs
    kept: Kept
    trust: Trust
    last_exits: LastExits
    commands: Commands
    link: Link
    packages: Packages
    gpus: Gpus
    disk: Disk
    watch: Watch


def make_parts(
    folder: MachineFolder,
    config: MachineConfig,
    r: Client,
    keys: Keys,
    *,
    boot_id: str,
    renewal: Renewal | None,
    report: Callable[[], MachineReport],
) -> Parts:
    """`report` is what the machine says of itself: it is asked once they are all there."""
    machine_id = config.machine.id
    supervisor, programs = Supervisor(folder.root), Programs()
    kept = Kept(folder, config, programs, boot_id)
    last_exits = LastExits(folder, programs)
    link = Link(r, keys, machine_id, report, renewal.refused if renewal else None)
    trust = Trust(
        lambda: read_key(folder.command_key, machine_id),
        kept.state.floor,
        renew=renewal.renew if renewal else None,
        changed=link.dirty,
    )
    packages = Packages(folder, tell=link.event, on_change=link.dirty, in_use=lambda: packages_in_use(programs))
    packages.want(config.package)

    def on_programs() -> None:
        link.dirty()
        packages.nudge()

    programs.on_change = on_programs
    return Parts(
        folder=folder,
        r=r,
        keys=keys,
        renewal=renewal,
        supervisor=supervisor,
        programs=programs,
        kept=kept,
        trust=trust,
        last_exits=last_exits,
        commands=Commands(folder, last_exits.secrets),
        link=link,
        packages=packages,
        gpus=Gpus(link.dirty),
        disk=Disk({folder.root, folder.services, *folders.log_folders()}, link.dirty),
        watch=Watch(programs, supervisor, tell=link.event, offset_ms=lambda: link.offset_ms),
    )
