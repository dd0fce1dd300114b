"""What a box that is let in is told: the way to Redis, what it is to run, and its keys."""

from __future__ import annotations

from functools import partial

import msgspec
from msgspec import Struct

from emp_orch.api.context import Context
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import config_hash, desired_machine, needed_secrets, secrets_of
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import Machine
from emp_orch.layout import Layout
from emp_orch.redis_users import user_of
from emp_orch.render.supervisord import render_machine
from emp_orch.resources import read_text
from emp_orch.runtimes.keys import package_scripts
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.joining import GATE_PATH, JoinAnswer
from emp_orch.store.acl.machine_scripts import sent_until_ms
from emp_orch.store.acl.users import grant
from emp_orch.store.artifacts.url import is_local
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis.client import time_ms
from emp_orch.urls import database_of, with_login

PACKAGES_PATH = "/packages"


class Credentials(Struct, frozen=True, kw_only=True):
    """A machine's own: its password at Redis, and the token that it keeps."""

    password: str
    token: str

    def __repr__(self) -> str:
        return "Credentials()"


async def told(ctx: Context, generation: Generation, machine: Machine, own: Credentials) -> JoinAnswer:
    """What `machine` of `generation` is to know, once it has its way to Redis: a member's is the gate, and no login."""
    fleet, settings = ctx.settings.fleet, ctx.settings
    url, scoped = ("", True) if machine.pool else await _login(ctx, generation, machine, own)
    desired = desired_machine(generation.fleet, machine)
    return JoinAnswer(
        fleet=fleet,
        machine_id=machine.id,
        redis_url=url,
        prefix=ctx.keys.prefix,
        scoped=scoped,
        artifacts_url="" if machine.pool or is_local(settings.artifacts) else settings.artifacts,
        packages_path=PACKAGES_PATH,
        token=own.token,
        config=_config(generation, desired),
        secrets=_secrets(ctx.layout, desired),
        orders=SigningKey(ctx.layout, fleet).handed(machine.id),
        gate=GATE_PATH if machine.pool else "",
    )


async def _login(ctx: Context, generation: Generation, machine: Machine, own: Credentials) -> tuple[str, bool]:
    """The URL with the machine's login, and whether that is one of its own."""
    fleet, settings = ctx.settings.fleet, ctx.settings
    sends = await machines_send(ctx, generation)
    if not await grant(ctx.redis, ctx.keys, fleet, machine.id, own.password, sends=sends):
        return settings.machine_redis_url, False
    user = user_of(fleet, machine.id, prefix=settings.prefix, database=database_of(settings.redis_url))
    return with_login(settings.machine_redis_url, user, own.password), True


async def machines_send(ctx: Context, in_force: Generation) -> bool:
    """Whether machines may send scripts of their own to Redis now."""
    seal = SigningKey(ctx.layout, ctx.settings.fleet).control()
    brought, now_ms = partial(package_scripts.is_brought, ctx.layout, ctx.keys.prefix), await time_ms(ctx.redis)
    return await sent_until_ms(ctx.redis, ctx.keys, seal, in_force, now_ms, brought) > now_ms


def _config(generation: Generation, machine: DesiredMachine) -> MachineConfig:
    return MachineConfig(
        generation=generation.number,
        digest=config_hash(machine),
        supervisord=render_machine(read_text("templates/supervisord.conf.j2"), machine),
        machine=machine,
        package=generation.package,
    )


def _secrets(layout: Layout, machine: DesiredMachine) -> dict[str, str]:
    """The values that this machine's programs name, and no other, as the last apply resolved them."""
    if not secrets_of(machine):
        return {}
    try:
        values = msgspec.json.decode(layout.secrets.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError) as e:
        raise EmpError(f"{layout.secrets} cannot be read", hint="run `emp apply` again") from e
    return needed_secrets(machine, values)
