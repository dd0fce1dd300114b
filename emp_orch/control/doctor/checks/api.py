"""Checks of the API and the page: they answer, the API reaches Redis and hears its events."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch import __version__
from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.doctor.model import Check, Group, Level, Problem, known, revive


def _health(facts: Facts) -> Iterator[Problem]:
    settings = known(facts.settings)
    where = f"{settings.api.url}/health"
    if isinstance(facts.api_health, Unknown):
        yield Problem(what=f"the API does not answer: {facts.api_health.reason}", fix=revive(facts, "api"), where=where)
        return
    answer = facts.api_health
    data = answer.document.get("data")
    if answer.status != 200 or not isinstance(data, dict) or "version" not in data:
        yield Problem(
            what=f"what answers there is not the API of emp (HTTP {answer.status})",
            fix="see the check of ports; another api.port in emp.yaml helps",
            where=where,
        )
        return
    if data.get("redis") is not True:
        yield Problem(
            what="the API runs, but Redis does not answer it", fix="emp logs api; see Redis above", where=where
        )
    if data.get("fleet") != settings.fleet:
        yield Problem(
            what=f"the API on this port serves fleet {data.get('fleet')!r}, not {settings.fleet!r}",
            fix="two fleets share a port: give one of them another api.port",
            where=where,
        )
    if data.get("version") != __version__:
        yield Problem(
            what=f"the API runs emp {data.get('version')}, this is emp {__version__}",
            fix="emp down, then emp apply: the control plane starts with the new version",
            where=where,
            level=Level.WARN,
        )


def _ready(facts: Facts) -> Iterator[Problem]:
    """Its subscriptions: without them the page stands still."""
    known(facts.api_health)
    answer = known(facts.api_ready)
    if answer.status != 200:
        yield Problem(
            what=f"the API is not ready: {answer.document.get('error') or f'HTTP {answer.status}'}",
            fix="emp logs api; it connects again by itself when Redis answers",
            where=f"{known(facts.settings).api.url}/ready",
        )


def _monitor(facts: Facts) -> Iterator[Problem]:
    settings = known(facts.settings)
    if isinstance(facts.monitor, Unknown):
        yield Problem(
            what=f"the monitor page does not answer: {facts.monitor.reason}",
            fix=revive(facts, "monitor"),
            where=settings.monitor.url,
        )
    elif facts.monitor.status != 200:
        yield Problem(
            what=f"the monitor page answers HTTP {facts.monitor.status}",
            fix="emp logs monitor",
            where=settings.monitor.url,
        )


CHECKS = (
    Check(name="api", group=Group.API, fine=lambda f: f"the API answers at {known(f.settings).api.url}", find=_health),
    Check(name="api-ready", group=Group.API, fine=lambda _: "the API follows events and start-ups", find=_ready),
    Check(
        name="monitor",
        group=Group.API,
        fine=lambda f: f"the page answers at {known(f.settings).monitor.url}",
        find=_monitor,
    ),
)
