"""`emp doctor`: what is wrong with this fleet, and the way out of each."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.plaintext import many_lines, one_line

if TYPE_CHECKING:
    from emp_orch.control.doctor.model import Finding

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red"), "unknown": ("?", "yellow")}
# Of one check no more than this many findings are shown; all of them with --json.
SHOWN = 10


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Leave out what is well.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--repair", "repairs", is_flag=True, help="First put aside what in Redis is not emp's.")
@click.pass_obj
def doctor(directory: Path, quiet: bool, as_json: bool, repairs: bool) -> None:
    """Examine this folder's fleet: emp.yaml, control plane, Redis, API, machines, workers. Changes nothing, but with
    --repair: a key of emp's that holds something else gets another name for a week, and emp writes its own anew.

    Answers by itself: why a machine is not there, why workers do not connect, why the API is out of reach.
    Exit: 0 all is well (warnings allowed), 1 something is wrong.
    """
    from emp_orch.control.doctor.examine import examine
    from emp_orch.control.doctor.facts.gather import gather
    from emp_orch.layout import Layout

    if repairs:
        from emp_orch.control.doctor.repair import repair

        done = asyncio.run(repair(Layout(directory)))
        for words in done or ["nothing in Redis is to be put aside"]:
            click.echo(one_line(words), err=True)
    findings = examine(asyncio.run(gather(Layout(directory), os.environ)))
    failed = any(f.level == "fail" for f in findings)
    if as_json:
        import json

        click.echo(json.dumps(as_document(findings), indent=2))
    else:
        from emp_orch.cli.output.progress import colour

        click.echo(text(findings, quiet=quiet), color=colour())
    sys.exit(1 if failed else 0)


def as_document(findings: Sequence[Finding]) -> dict[str, Any]:
    import msgspec

    levels = [str(f.level) for f in findings]
    return {
        "ok": "fail" not in levels,
        "counts": {level: levels.count(level) for level in _MARKS},
        "findings": [msgspec.to_builtins(f) for f in findings],
    }


def text(findings: Sequence[Finding], *, quiet: bool = False) -> str:
    """Findings by group, the way out below each, and a last line that counts."""
    lines: list[str] = []
    for group in dict.fromkeys(f.group for f in findings):
        of_group = [f for f in findings if f.group == group and not (quiet and f.level == "ok")]
        if of_group:
            lines += [click.style(group, bold=True), *_group(of_group, lines), ""]
    return "\n".join([*lines, _sum(findings)])


def _group(findings: Sequence[Finding], before: Sequence[str]) -> list[str]:
    """The lines of one group; checks that lack the same fact share one, and many alike are cut short."""
    lines: list[str] = []
    for check in dict.fromkeys(f.check for f in findings if f.level != "unknown"):
        alike = [f for f in findings if f.check == check]
        for finding in alike[:SHOWN]:
            lines += _lines(finding)
        if len(alike) > SHOWN:
            lines.append(f"    … and {len(alike) - SHOWN} more like these: emp doctor --json")
    for reason in dict.fromkeys(f.what for f in findings if f.level == "unknown"):
        names = ", ".join(f.check for f in findings if f.level == "unknown" and f.what == reason)
        told = any(reason in line for line in [*before, *lines])
        mark, colour = _MARKS["unknown"]
        lines.append(
            f"  {click.style(mark, fg=colour)} cannot tell ({names}): {'see above' if told else many_lines(reason)}"
        )
    return lines


def _lines(finding: Finding) -> list[str]:
    mark, colour = _MARKS[finding.level]
    first, *rest = many_lines(finding.what).splitlines() or [""]
    where = f"  [{finding.where}]" if finding.where and finding.where not in finding.what else ""
    lines = [f"  {click.style(mark, fg=colour)} {first}{one_line(where)}", *(f"    {line}" for line in rest)]
    return [*lines, f"    → {many_lines(finding.fix)}"] if finding.fix else lines


def _sum(findings: Sequence[Finding]) -> str:
    levels = [str(f.level) for f in findings]
    failed, warned, unknown = levels.count("fail"), levels.count("warn"), levels.count("unknown")
    if not failed and not warned and not unknown:
        return click.style(f"all is well: {len(levels)} checks", fg="green")
    parts = [
        f"{failed} wrong" if failed else "nothing is wrong",
        *([f"{warned} to look at"] if warned else []),
        *([f"{unknown} that could not be told"] if unknown else []),
    ]
    return click.style(", ".join(parts), fg="red" if failed else "yellow")
