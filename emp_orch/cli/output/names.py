"""What the commands take as a name: any form in which emp prints one (fleet/model/names), as applied here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emp_orch.errors import EmpError, UsageError

if TYPE_CHECKING:
    from emp_orch.fleet.names import Name, Names
    from emp_orch.layout import Layout
    from emp_orch.store.fleet.generations import Generation


def known_names(layout: Layout) -> Names | None:
    """The names of the fleet in this folder, with the members of its pools, and machines that left it and may still run
    here; None when nothing was applied."""
    from emp_orch.control.host.generation import kept
    from emp_orch.control.logs.files import CONTROL
    from emp_orch.fleet.names import names_of

    generation = kept(layout)
    if generation is None:
        return None
    fleet = (_with_members(layout, generation) if generation.fleet.pools else generation).fleet
    return names_of(fleet, more=sorted(_left(layout)), parts=CONTROL)


def _with_members(layout: Layout, generation: Generation) -> Generation:
    """`generation` with the members that its pools have now; as it is where Redis does not say."""
    import asyncio

    from emp_orch import settings as settings_files
    from emp_orch.control.host.generation import with_members
    from emp_orch.store.redis import client
    from emp_orch.store.redis.keys import Keys

    settings = settings_files.known(layout)
    if settings is None:
        return generation

    async def read() -> Generation:
        async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
            return await with_members(r, Keys(settings.prefix), layout, generation)

    try:
        return asyncio.run(read())
    except (EmpError, *client.TRANSIENT):
        return generation


def _left(layout: Layout) -> set[str]:
    """Machines that have a folder here, or a place on a Docker host."""
    found = {path.name for path in layout.machines.glob("*") if path.is_dir()}
    return found | {path.stem for path in layout.hosts.glob("*/machines/*.json")}


def named(directory: Path, *words: str | None) -> Name:
    """The machine or program that `words` mean. Without a fleet they are taken as they are: the command says what is
    missing. Raises UnknownName.
    """
    from emp_orch.fleet.names import Name
    from emp_orch.layout import Layout

    given = [word for word in words if word is not None]
    names = known_names(Layout(directory))
    if names is None:
        return Name(machine=given[0], program=given[1] if len(given) > 1 else None)
    return names.find(given)


def machine_named(directory: Path, word: str, *, what: str) -> str:
    """The machine that `word` means, for a command that is about whole machines: `what` says what it does. Raises
    UsageError for a program's name.
    """
    name = named(directory, word)
    if name.program is not None:
        raise UsageError(
            f"{name.text} is a program of machine {name.machine}, and {what} is of machines only",
            hint=f"name the machine: {name.machine}",
        )
    return name.machine


def program_named(directory: Path, *words: str | None) -> Name:
    """As `named`, for a command that acts on programs. Raises UsageError for one that emp runs for itself."""
    name = named(directory, *words)
    if name.own:
        raise UsageError(
            f"{name.program} is emp's own program on {name.machine}: it starts and ends with the machine",
            hint=f"name the machine: {name.machine}",
        )
    return name


def lasting(directory: Path, word: str, *, what: str = "") -> str:
    """The machine that `word` means; `word` itself where nobody is called so, as a machine that was forgotten, or the
    name of replicas. With `what`, as machine_named, for programs.
    """
    from emp_orch.fleet.names import UnknownName

    try:
        return machine_named(directory, word, what=what) if what else named(directory, word).machine
    except UnknownName:
        return word


def components(layout: Layout, words: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """`words` as components of `emp logs`, of which those `known` have files: `m comfyui-gpu0` is one where `m` is a
    machine. What nobody is called stays as it is."""
    from emp_orch.fleet.names import LOG_PREFIX

    names = known_names(layout)
    found: list[str] = []
    before = ""
    for word in words:
        plain = word in known or LOG_PREFIX + word in known
        pair = None if names is None or plain or not before else _found(names, (before, word))
        if names is not None and pair is not None and pair.program is not None:
            found[-1] = _component(pair)
            before = ""
            continue
        name = None if names is None or plain else _found(names, (word,))
        found.append(_component(name) if name else word)
        before = word
    return tuple(found)


def _component(name: Name) -> str:
    from emp_orch.fleet.names import LOG_PREFIX

    # What supervisord says is the machine's own log.
    return LOG_PREFIX + (name.machine if name.program == "supervisord" else name.text)


def _found(names: Names, words: Sequence[str]) -> Name | None:
    """None for a name that nobody has, or that several have."""
    try:
        return names.find(words)
    except UsageError:
        return None
