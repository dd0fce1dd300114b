"""A fleet → the text of the systemd unit that brings it up at boot, and down in order.

Source: systemd.unit(5), systemd.service(5), systemd.syntax(7).
"""

from __future__ import annotations

from msgspec import Struct

from emp_orch.render.compose import compiled
from emp_orch.render.quoting import systemd_command, systemd_comment, systemd_word


class Unit(Struct, frozen=True, kw_only=True):
    """`fleet` in the absolute `folder`. `command` is the main process, `path` its PATH.

    `stop_s`: how long its end may take. `user`: whose processes they are; empty for a unit of a user's own manager.
    """

    fleet: str
    folder: str
    command: tuple[str, ...]
    path: str
    user: str
    stop_s: int


def render_unit(template: str, unit: Unit) -> str:
    """The unit's file; `template` is templates/emp.service.j2."""
    return compiled(template).render(
        fleet=unit.fleet,
        folder=systemd_comment(unit.folder),
        mounts=systemd_word(unit.folder),
        system=bool(unit.user),
        user=unit.user,
        path=systemd_word(f"PATH={unit.path}"),
        command=systemd_command(unit.command),
        stop_s=unit.stop_s,
    )
