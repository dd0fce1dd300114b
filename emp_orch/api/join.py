"""`POST /api/machines/{id}/join`: a box shows its token, and learns the way to Redis and what it is to run.

The token is all that it needs here, and all that it is good for. Whoever comes with another is told nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
from aiohttp import web

from emp_orch.api.context import Context, answer, context
from emp_orch.api.query import name_in_path
from emp_orch.api.rate import Rate
from emp_orch.errors import EmpError
from emp_orch.fleet.desired import DesiredMachine, config_hash, desired_machine, needed_secrets, secrets_of
from emp_orch.fleet.model import RuntimeKind
from emp_orch.layout import Layout
from emp_orch.render.supervisord import render_machine
from emp_orch.resources import read_text
from emp_orch.runtimes.join_tokens import JoinTokens
from emp_orch.store.artifact_url import is_local
from emp_orch.store.configs import MachineConfig
from emp_orch.store.connect import TRANSIENT, within
from emp_orch.store.generations import read_generation
from emp_orch.store.joining import JoinAnswer
from emp_orch.store.scoped_access import grant, renew, user_of, with_login
from emp_orch.web.errors import Refused

log = logging.getLogger(__name__)

PACKAGES_PATH = "/packages"
AWAY_S = 2.0
# A fleet's boxes may all come at once, after a power cut; who guesses tokens gets nowhere at this rate.
BURST = 200
PER_S = 20.0

RATE = web.AppKey("join rate", Rate)


def is_members(request: web.Request) -> bool:
    """Whether this request needs no token of the API's: it is a machine's that joins, or fetches a worker package with
    the token that it got for that.
    """
    parts = request.path.split("/")
    if request.method == "POST":  # the handler looks at its token
        return len(parts) == 5 and parts[:3] == ["", "api", "machines"] and parts[4] == "join"
    if request.method != "GET" or not request.path.startswith(f"{PACKAGES_PATH}/"):
        return False
    ctx = context(request)
    return JoinTokens(ctx.layout).holder(_bearer(request), ctx.settings.fleet, now_s=time.time()) is not None


async def join(request: web.Request) -> web.Response:
    ctx, machine_id = context(request), name_in_path(request, "id")
    wait_s = request.app[RATE].take(time.monotonic())
    if wait_s > 0:
        raise Refused(429, "too many ask to join at once", headers={"Retry-After": str(int(wait_s) + 1)})
    tokens = JoinTokens(ctx.layout)
    if not tokens.opens(_bearer(request), ctx.settings.fleet, machine_id, now_s=time.time()):
        raise Refused(403, "this token does not let anybody join here")
    async with within():
        config = await _config(ctx, machine_id)
        told = await _told(ctx, tokens, config)
    return answer(msgspec.to_builtins(told))


def _bearer(request: web.Request) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


async def _config(ctx: Context, machine_id: str) -> MachineConfig:
    """What the generation in force wants of the machine. Raises Refused (404) when it has no such external one."""
    generation = await read_generation(ctx.redis, ctx.keys, ctx.settings.fleet)
    machines = generation.fleet.machines if generation else ()
    found = next((m for m in machines if m.id == machine_id and m.runtime is RuntimeKind.EXTERNAL), None)
    if generation is None or found is None:
        raise Refused(404, f"the fleet has no external machine {machine_id} now")
    machine = desired_machine(generation.fleet, found)
    return MachineConfig(
        generation=generation.number,
        digest=config_hash(machine),
        supervisord=render_machine(read_text("templates/supervisord.conf.j2"), machine),
        machine=machine,
        package=generation.package,
    )


async def _told(ctx: Context, tokens: JoinTokens, config: MachineConfig) -> JoinAnswer:
    fleet, machine_id, url = ctx.settings.fleet, config.machine.id, ctx.settings.machine_redis_url
    password = tokens.password(fleet, machine_id)
    scoped = await grant(ctx.redis, ctx.keys, fleet, machine_id, password)
    return JoinAnswer(
        fleet=fleet,
        machine_id=machine_id,
        redis_url=with_login(url, user_of(fleet, machine_id), password) if scoped else url,
        prefix=ctx.keys.prefix,
        scoped=scoped,
        artifacts_url="" if is_local(ctx.settings.artifacts) else ctx.settings.artifacts,
        packages_path=PACKAGES_PATH,
        token=tokens.issue(fleet, machine_id, expires_s=None),
        config=config,
        secrets=_secrets(ctx.layout, config.machine),
    )


async def renew_rights(ctx: Context) -> None:
    """Give the boxes that joined an older emp the rights that they need now; return when that is done."""
    while True:
        try:
            async with within():
                generation = await read_generation(ctx.redis, ctx.keys, ctx.settings.fleet)
            machines = generation.fleet.machines if generation else ()
            for name in [m.id for m in machines if m.runtime is RuntimeKind.EXTERNAL]:
                password = JoinTokens(ctx.layout).password(ctx.settings.fleet, name)
                async with within():
                    await renew(ctx.redis, ctx.keys, ctx.settings.fleet, name, password)
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
