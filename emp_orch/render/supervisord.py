"""Desired machine, or control plane → supervisord.conf text.

The text names no path of any host, so the same machine renders to the same text everywhere.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import assert_never

from jinja2 import Environment, StrictUndefined, Template
from msgspec import Struct

from emp_orch.environments import of_store
from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram, ProgramKind
from emp_orch.fleet.model.fleet import SecretRef
from emp_orch.render.quoting import word


class _Program(Struct, frozen=True, kw_only=True):
    name: str
    command: str
    once: bool
    start_seconds: int
    priority: int
    stop_signal: str
    stop_seconds: int


class ControlProgram(Struct, frozen=True, kw_only=True):
    """A daemon of the control plane. `log` is the file's name in logs/, without `.log`. `opens_store`: it reads what
    jobs made, or deletes it.
    """

    name: str
    log: str
    priority: int
    stop_seconds: int = 10
    opens_store: bool = False


CONTROL_PROGRAMS = (
    ControlProgram(name="api", log="api", priority=20, opens_store=True),
    ControlProgram(name="reconcile", log="reconcile", priority=30, stop_seconds=30, opens_store=True),
    ControlProgram(name="monitor", log="monitor", priority=40),
    ControlProgram(name="eventlog", log="eventlog", priority=50),
)
EMBEDDED_REDIS = ControlProgram(name="redis", log="redis", priority=10, stop_seconds=60)


# What stops first has the highest number: workers, while their services can still finish a job.
_PRIORITY = {ProgramKind.SETUP: 100, ProgramKind.INSTALLER: 100, ProgramKind.SERVICE: 200, ProgramKind.WORKER: 300}


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    # The output is a configuration file, not HTML; quoting.word is its escaping.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701
    return environment.from_string(template)


def render_machine(template: str, machine: DesiredMachine) -> str:
    """supervisord.conf of `machine`; `template` is templates/supervisord.conf.j2."""
    return _compiled(template).render(machine_id=machine.id, programs=[_program(p) for p in machine.programs])


def render_control(template: str, *, embedded_redis: bool, artifacts: str = "") -> str:
    """supervisord.conf of the control plane; `template` is templates/control.conf.j2, `artifacts` the store's URL."""
    programs = ((EMBEDDED_REDIS,) if embedded_redis else ()) + CONTROL_PROGRAMS
    given = " ".join(f"--inherit {name}={SecretRef(source='env', name=name).key}" for name in of_store(artifacts))
    return _compiled(template).render(programs=programs, of_store=f"{given} " if given else "")


def _program(program: DesiredProgram) -> _Program:
    return _Program(
        name=program.name,
        command=launch_line(program),
        once=program.kind.once,
        # At least 1 for what stays up: with 0 supervisord restarts a crashing program without any pause.
        start_seconds=0 if program.kind.once else max(1, math.ceil(program.start_s)),
        priority=_PRIORITY[program.kind],
        stop_signal=program.stop.signal,
        stop_seconds=max(1, math.ceil(program.stop.timeout_s)),
    )


def launch_line(program: DesiredProgram) -> str:
    """The arguments of emp's launcher (machine/launch.py) for `program`, quoted for `command=`."""
    words: list[str] = [program.name]
    for flag, option in (("--cwd", program.cwd), ("--creates", program.creates)):
        if option is not None:
            words += [flag, option]
    for name, value in sorted(program.env.items()):
        match value:
            case SecretRef(optional=True):
                words += ["--inherit", f"{name}={value.key}"]
            case SecretRef():
                words += ["--secret", f"{name}={value.key}"]
            case str():
                words += ["--env", f"{name}={value}"]
            case _:
                assert_never(value)
    return " ".join(word(w) for w in [*words, "--", *program.argv])
