"""`emp provider test`: whether a user's program keeps what emp asks of a provider."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.output.options import Duration
from emp_orch.errors import Exit, UsageError
from emp_orch.plaintext import many_lines

if TYPE_CHECKING:
    from emp_orch.runtimes.providers.base import Launch, Provider
    from emp_orch.runtimes.providers.contract import Subject
    from emp_orch.runtimes.providers.trial import Tried

# The boxes of a trial join nowhere: nobody listens there.
_NOWHERE = "http://127.0.0.1:9"
_STOP_S = 5.0


@click.group()
def provider() -> None:
    """Programs of your own that start the boxes of a pool: `provider: command` in emp.yaml."""


@provider.command(
    "test",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    short_help="Try PROGRAM by all that emp asks of a provider.",
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="-- PROGRAM…")
@click.option(
    "--env",
    "given",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable for PROGRAM; without a value, as it stands in your environment. No output shows it.",
)
@click.option("--image", default="", help="What the boxes are to be started from, as a pool's `image`.")
@click.option("--num-gpus", type=click.IntRange(0, 64), default=1, show_default=True, help="GPUs of each box.")
@click.option("--gpus", type=click.Choice(["none", "nvidia"]), default="none", show_default=True, help="Of which kind.")
@click.option(
    "--timeout", type=Duration(min=1, max=80), default="60s", show_default=True, help="How long one request may take."
)
@click.option(
    "--within",
    type=Duration(min=1),
    default="60s",
    show_default=True,
    help="How long a box may take until the list shows it, or shows that it is gone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each rule, and what is left, as JSON.")
@click.pass_obj
def test(
    directory: Path,
    program: tuple[str, ...],
    given: tuple[str, ...],
    image: str,
    num_gpus: int,
    gpus: str,
    timeout: float,
    within: float,
    as_json: bool,
) -> None:
    """Try PROGRAM, in this folder, by all that emp asks of a provider: emp provider test -- python3 ./mine.py

    It starts real boxes, of a fleet that does not exist, and gives them back: at a service that takes money they cost
    some. They are started as a pool's boxes are, but join nowhere. Each rule is told with what was seen instead, and
    PROGRAM's own words.

    Exit: 0 all rules are kept and nothing is left; 1 a rule is broken, or a box may be left, which is named; 2 PROGRAM
    cannot be run.
    """
    import asyncio

    from emp_orch.runtimes.last_words import redacted

    words = program[1:] if program[:1] == ("--",) else program
    if not words:
        raise UsageError("no program was given", hint="for example: emp provider test -- python3 ./mine.py")
    env = dict(_variable(each) for each in given)
    options = {"command": list(words), "env": env, "timeout": f"{timeout:g}s", "every": "0s"}
    subject = _subject(directory, options, image=image, num_gpus=num_gpus, gpus=gpus, within_s=within)

    def tell(one: Tried) -> None:
        if not as_json:
            click.echo(f"FAILED  {one.promise}\n        {one.why}" if one.why else f"ok      {one.promise}")

    results, left = asyncio.run(_tried(subject, tell, lambda text: redacted(text, env.values())))
    broken = [one for one in results if one.why]
    if as_json:
        rules = [{"rule": r.rule, "promise": r.promise, "ok": not r.why, "why": r.why} for r in results]
        click.echo(json.dumps({"rules": rules, "left": left}, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{len(results) - len(broken)} of {len(results)} rules are kept")
    if left or broken:
        raise click.exceptions.Exit(Exit.FAILED)


def _variable(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if equals:
        return name, value
    try:
        return name, os.environ[name]
    except KeyError:
        raise UsageError(f"--env {name}: the environment has no {name}", hint="or give --env NAME=VALUE") from None


def _subject(
    directory: Path, options: Mapping[str, object], *, image: str, num_gpus: int, gpus: str, within_s: float
) -> Subject:
    """Of a fleet whose name nobody else has, so that nothing of a real one is seen."""
    import secrets

    from emp_orch.fleet.model.fleet import GpuKind, Limits, MachineId, PoolName
    from emp_orch.layout import Layout
    from emp_orch.options.base import WrongOption
    from emp_orch.options.provider_command import COMMAND, options_of
    from emp_orch.runtimes.providers.base import Launch, Making, ProviderError
    from emp_orch.runtimes.providers.contract import Subject
    from emp_orch.runtimes.providers.registry import load

    try:
        options_of(options)
    except WrongOption as e:
        raise UsageError(e.message, hint=e.hint) from e

    def made(fleet: str, pool: PoolName) -> Provider:
        making = Making(fleet=fleet, pool=pool, options=options, folder=str(Layout(directory).state))
        found = load(COMMAND, making)
        if found is None:
            raise ProviderError(f"there is no provider {COMMAND}")
        return found

    def launch(fleet: str, pool: PoolName, member_id: MachineId) -> Launch:
        return Launch(
            fleet=fleet,
            pool=pool,
            member_id=member_id,
            api=_NOWHERE,
            token=f"emp1.{member_id}.{secrets.token_hex(16)}",
            image=image,
            num_gpus=num_gpus,
            gpus=GpuKind(gpus),
            volumes=(),
            limits=Limits(),
            stop_s=_STOP_S,
            environment={},
        )

    return Subject(provider=made, launch=launch, fleet=f"try-{secrets.token_hex(4)}", within_s=within_s)


async def _tried(
    subject: Subject, tell: Callable[[Tried], None], hide: Callable[[str], str]
) -> tuple[list[Tried], list[str]]:
    """What came of each rule, and what is left, which is told also to whoever breaks off. Raises CannotRun."""
    from msgspec import structs

    from emp_orch.runtimes.providers.trial import Trial

    await _assure_it_runs(subject)
    trial = Trial(subject)
    results: list[Tried] = []
    left: list[str] = []
    try:
        async for one in trial.results():
            results.append(structs.replace(one, why=many_lines(hide(one.why))))
            tell(results[-1])
    finally:
        for line in await trial.clear():
            left.append(many_lines(hide(line)))
            click.echo(f"left behind: {left[-1]}", err=True)
    return results, left


async def _assure_it_runs(subject: Subject) -> None:
    from emp_orch.runtimes.providers.base import ProviderError
    from emp_orch.runtimes.providers.command.run import CannotRun

    own = subject.provider(subject.fleet, subject.pool)
    try:
        await own.boxes()
    except CannotRun:
        raise
    except ProviderError:
        return  # the rules tell more
    finally:
        await own.aclose()
