"""Every command of emp, from click: usage, what it does, arguments and options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from docs_site.reference.markdown import code, prose, table
from emp_orch.cli.main import DAEMONS, cli


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A command as it is typed (`emp jobs show`), with click's context for it."""

    typed: str
    command: click.Command
    context: click.Context


def page() -> str:
    lines = [
        "# Commands",
        "",
        "This page is made from the commands themselves; `emp COMMAND --help` prints the same.",
        "The daemons at the end are started by supervisord. You rarely type them.",
        "",
    ]
    found = list(commands())
    for one in [*_those(found, daemons=False), *_those(found, daemons=True)]:
        lines += _entry(one)
    return "\n".join(lines)


def commands() -> Iterator[Found]:
    """`emp`, and each command and subcommand that is not hidden, in the order of `emp --help`."""
    yield from _below(Found(typed="emp", command=cli, context=click.Context(cli, info_name="emp")))


def _below(found: Found) -> Iterator[Found]:
    yield found
    if not isinstance(found.command, click.Group):
        return
    for name in found.command.list_commands(found.context):
        command = found.command.get_command(found.context, name)
        if command is not None and not command.hidden:
            context = click.Context(command, info_name=name, parent=found.context)
            yield from _below(Found(typed=f"{found.typed} {name}", command=command, context=context))


def _those(found: list[Found], *, daemons: bool) -> list[Found]:
    return [one for one in found if bool(set(one.typed.split()[1:2]) & DAEMONS) is daemons]


def _entry(found: Found) -> list[str]:
    level = "##" if len(found.typed.split()) < 3 else "###"
    usage = " ".join([found.typed, *found.command.collect_usage_pieces(found.context)])
    lines = [f"{level} {found.typed}", "", "```text", usage, "```", "", *_help(found.command.help or "")]
    rows = []
    for param in found.command.get_params(found.context):
        record = param.get_help_record(found.context)
        if record is not None and record[1] and "--help" not in param.opts:
            rows.append((code(record[0]), prose(record[1])))
    return [*lines, *table(("option", "meaning"), rows)]


def _help(text: str) -> list[str]:
    """Paragraphs of prose; one that begins with \\b is set as it was written."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text).partition("\f")[0]):
        if paragraph.startswith("\b"):
            lines += ["```text", paragraph.removeprefix("\b").strip("\n"), "```", ""]
        elif paragraph.strip():
            lines += [prose(paragraph), ""]
    return lines
