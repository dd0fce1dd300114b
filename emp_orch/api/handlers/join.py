"""`POST /api/machines/{id}/join`: a box shows its token, and learns the way to Redis and what it is to run.

The token is all that it needs here, and all that it is good for. Whoever comes with another is told nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

import msgspec
from aiohttp import web

from emp_orch.api.context import Context, answer, context
from emp_orch.api.duplicate_boxes import Boxes, living, refuse_second
from emp_orch.api.handlers import work
from emp_orch.api.machine_token import bearer, holder
from emp_orch.api.views.query import body, name_in_path
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import config_hash, desired_machine, needed_secrets, secrets_of
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.layout import Layout
from emp_orch.render.supervisord import render_machine
from emp_orch.resources import read_text
from emp_orch.runtimes.keys import package_scripts
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.keys.logins import MachineLogins
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.joining import Asking, JoinAnswer
from emp_orch.store.acl.machine_scripts import sent_until_ms
from emp_orch.store.acl.users import grant, renew
from emp_orch.store.artifacts.url import is_local
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.fleet.generations import Generation, read_generation
from emp_orch.store.redis.client import TRANSIENT, time_ms, within
from emp_orch.web.errors import Refused
from emp_orch.web.rate import Rate, Rates

log = logging.getLogger(__name__)

PACKAGES_PATH = "/packages"
AWAY_S = 2.0
# A fleet's boxes may all come at once, after a power cut.
BURST = 200
PER_S = 20.0
# Who guesses tokens is told to wait, and keeps no box out: a token that opens is never counted as a guess.
GUESSES = 20
GUESSES_PER_S = 0.5
ADDRESSES = 10_000

RATE = web.AppKey("join rate", Rate)
FAILED = web.AppKey("joins that failed", Rates)
BOXES = web.AppKey("boxes let in", Boxes)


def is_members(request: web.Request) -> bool:
    """Whether this request needs no token of the API's: it is a machine's that joins, or fetches a worker package or is
    at the files of its runs with the token that it got for that.
    """
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical in work.PATHS:
        return holder(request) is not None
    parts = request.path.split("/")
    if request.method == "POST":  # the handler looks at its token
        return len(parts) == 5 and parts[:3] == ["", "api", "machines"] and parts[4] == "join"
    if request.method != "GET" or not request.path.startswith(f"{PACKAGES_PATH}/"):
        return False
    return holder(request) is not None


async def join(request: web.Request) -> web.Response:
    ctx, machine_id = context(request), name_in_path(request, "id")
    tokens = JoinTokens(ctx.layout)
    if not tokens.opens(bearer(request), ctx.settings.fleet, machine_id, now_s=time.time()):
        _wait(request.app[FAILED].take(request.remote or "", time.monotonic()), "too many tokens that open nothing")
        raise Refused(403, "this token does not let anybody join here")
    _wait(request.app[RATE].take(time.monotonic()), "too many ask to join at once")
    asking, boxes = await body(request, Asking, empty=Asking()), request.app[BOXES]
    async with within():
        config, generation = await _wanted(ctx, machine_id)
        stale_after_s = generation.fleet.reconcile.stale_after_s
        heard = await living(ctx.redis, ctx.keys, machine_id, stale_after_s)
        # From here to where it is let in nobody else has a turn.
        now_s = time.monotonic()
        let_in = boxes.other(machine_id, asking, now_s, stale_after_s)
        refuse_second(machine_id, asking, heard, let_in, stale_after_s)
        boxes.let_in(machine_id, asking, now_s)
        told = await _told(ctx, tokens, config, generation)
    return answer(msgspec.to_builtins(told))


def _wait(wait_s: float, why: str) -> None:
    if wait_s > 0:
        raise Refused(429, why, headers={"Retry-After": str(int(wait_s) + 1)})


async def _wanted(ctx: Context, machine_id: str) -> tuple[MachineConfig, Generation]:
    """What the generation in force wants of the machine, and that generation.

    Raises Refused (404) when it has no such external one.
    """
    seal = SigningKey(ctx.layout, ctx.settings.fleet).control()
    generation = await read_generation(ctx.redis, ctx.keys, ctx.settings.fleet, seal)
    machines = generation.fleet.machines if generation else ()
    found = next((m for m in machines if m.id == machine_id and m.traits.joins), None)
    if generation is None or found is None:
        raise Refused(404, f"the fleet has no external machine {machine_id} now")
    machine = desired_machine(generation.fleet, found)
    config = MachineConfig(
        generation=generation.number,
        digest=config_hash(machine),
        supervisord=render_machine(read_text("templates/supervisord.conf.j2"), machine),
        machine=machine,
        package=generation.package,
    )
    return config, generation


async def _told(ctx: Context, tokens: JoinTokens, config: MachineConfig, generation: Generation) -> JoinAnswer:
    fleet, machine_id, url = ctx.settings.fleet, config.machine.id, ctx.settings.machine_redis_url
    password, sends = tokens.password(fleet, machine_id), await _machines_send(ctx, generation)
    scoped = await grant(ctx.redis, ctx.keys, fleet, machine_id, password, sends=sends)
    logins = MachineLogins(ctx.layout, ctx.settings, scoped=scoped)
    return JoinAnswer(
        fleet=fleet,
        machine_id=machine_id,
        redis_url=logins.way(machine_id, url),
        prefix=ctx.keys.prefix,
        scoped=scoped,
        artifacts_url="" if is_local(ctx.settings.artifacts) else ctx.settings.artifacts,
        packages_path=PACKAGES_PATH,
        token=tokens.issue(fleet, machine_id, expires_s=None),
        config=config,
        secrets=_secrets(ctx.layout, config.machine),
        orders=SigningKey(ctx.layout, fleet).handed(machine_id),
    )


async def _machines_send(ctx: Context, in_force: Generation) -> bool:
    """Whether machines may send scripts of their own to Redis now."""
    seal = SigningKey(ctx.layout, ctx.settings.fleet).control()
    brought, now_ms = partial(package_scripts.is_brought, ctx.layout, ctx.keys.prefix), await time_ms(ctx.redis)
    return await sent_until_ms(ctx.redis, ctx.keys, seal, in_force, now_ms, brought) > now_ms


async def renew_rights(ctx: Context) -> None:
    """Give the boxes that joined an older emp the rights that they need now; return when that is done."""
    seal = SigningKey(ctx.layout, ctx.settings.fleet).control()
    while True:
        try:
            async with within():
                generation = await read_generation(ctx.redis, ctx.keys, ctx.settings.fleet, seal)
                sends = generation is not None and await _machines_send(ctx, generation)
            machines = generation.fleet.machines if generation else ()
            for name in [m.id for m in machines if m.traits.joins]:
                password = JoinTokens(ctx.layout).password(ctx.settings.fleet, name)
                async with within():
                    await renew(ctx.redis, ctx.keys, ctx.settings.fleet, name, password, sends=sends)
            return
        except (*TRANSIENT, TimeoutError) as e:
            log.warning("cannot look after the rights of boxes that joined: %s", e or type(e).__name__)
        except EmpError as e:  # a damaged generation: nobody can join either
            log.warning("cannot look after the rights of boxes that joined: %s", e.message)
            return
        await asyncio.sleep(AWAY_S)


def _secrets(layout: Layout, machine: DesiredMachine) -> dict[str, str]:
    """The values that this machine's programs name, and no other, as the last apply resolved them."""
    if not secrets_of(machine):
        return {}
    try:
        values = msgspec.json.decode(layout.secrets.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError) as e:
        raise EmpError(f"{layout.secrets} cannot be read", hint="run `emp apply` again") from e
    return needed_secrets(machine, values)
