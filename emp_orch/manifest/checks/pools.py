"""What emp.yaml says of pools, as far as no schema can check it."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import Pool
from emp_orch.fleet.model.hosts import LOCAL
from emp_orch.fleet.model.pools import MAX_SIZE
from emp_orch.manifest.build import Built
from emp_orch.manifest.show import found
from emp_orch.manifest.text.problems import Path, Report
from emp_orch.manifest.text.tree import Source
from emp_orch.options import providers
from emp_orch.options.base import WrongOption


def check(built: Built, source: Source, report: Report) -> None:
    """Report sizes that are none, names that machines have, and options that a provider does not know."""
    for pool in built.fleet.pools.values():
        path: Path = ("pools", pool.name)
        _size(pool, path, source, report)
        taken = next((m for m in built.fleet.machines if f"{m.id}-".startswith(f"{pool.name}-")), None)
        if taken is not None:
            message = f"machine {taken.id} has a name that its members could have"
            report.add(path, source.key_mark(path), message, "choose another name for one of them")
        if _options(pool, (*path, "provider_options"), source, report):
            _host(built, pool, (*path, "provider_options", "host"), source, report)


def _size(pool: Pool, path: Path, source: Source, report: Report) -> None:
    at = (*path, "size")
    if pool.min_size > pool.max_size:
        shown = found(source, at, f"{pool.min_size}..{pool.max_size}")
        report.add(at, source.value_mark(at), f"expected the smaller number first, found {shown}")
    elif pool.max_size > MAX_SIZE:
        shown = found(source, at, f"{pool.min_size}..{pool.max_size}")
        report.add(at, source.value_mark(at), f"expected {MAX_SIZE} boxes at most, found {shown}")


def _host(built: Built, pool: Pool, at: Path, source: Source, report: Report) -> None:
    """The Docker host that a provider asks is one of `hosts:`."""
    name = providers.host_of(pool.provider, pool.options)
    if name and name != LOCAL and name not in built.fleet.hosts:
        shown = found(source, at, name)
        report.add(
            at, source.value_mark(at), f"expected the name of one of hosts, found {shown}", "name it in `hosts:`"
        )


def _options(pool: Pool, at: Path, source: Source, report: Report) -> bool:
    """Whether they are right by the provider's own rules; the line is that of the option, or of what lacks one."""
    try:
        providers.check(pool.provider, pool.options)
        return True
    except WrongOption as e:
        there: Path = (*at, *filter(None, e.name.split(".")))
        if source.node(there) is not None:
            value = "" if e.found is None else f", found {found(source, there, e.found)}"
            report.add(there, source.key_mark(there), f"{e.what}{value}", e.hint)
            return False
        above = there
        while source.node(above) is None:
            above = above[:-1]
        report.add(above, source.key_mark(above), f"provider {pool.provider}: {e.name} {e.what}", e.hint)
        return False
