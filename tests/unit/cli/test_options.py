"""What options take: durations as emp.yaml writes them, in every command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from emp_orch.cli.main import cli
from emp_orch.cli.output.options import Duration
from emp_orch.store.fleet.journal_reads import wanted
from emp_orch.units import duration, seconds

NOW_MS = 1_000_000_000
# Words of options that take a time. `--since` takes a moment too, and is read where the clock is.
TIMES = ("timeout", "interval", "within", "expires", "older-than", "delay", "ttl", "heartbeat", "probe", "wait-for")


@pytest.mark.parametrize(
    ("text", "found"),
    [("90", 90), ("1.5", 1.5), ("0", 0), ("500ms", 0.5), ("60s", 60), ("1m", 60), ("1.5h", 5400), ("7d", 604_800)],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(text: str, found: float) -> None:
    assert duration(text) == found
    assert duration(f"{found:g}") == found


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "-1s", "1 m", "1M", "1w", "s", "nan", "inf", "1m30s", "1e999", "99999d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        duration(text)


def test_a_unit_is_needed_where_emp_yaml_is_read() -> None:
    with pytest.raises(ValueError):
        seconds("90")


def _commands(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from _commands(child, *path, name)


def _options() -> dict[str, click.Option]:
    return {
        f"{path} {option.opts[-1]}": option
        for path, command in _commands(cli)
        for option in command.params
        if isinstance(option, click.Option)
    }


def test_every_time_that_a_command_takes_is_a_duration() -> None:
    options = _options()
    bare = [n for n, o in options.items() if isinstance(o.type, click.types.FloatParamType)]
    assert bare == [], "of a share or a factor FloatRange tells the range"
    times = {n: o for n, o in options.items() if any(word in n.rpartition("--")[2] for word in TIMES)}
    assert {n for n, o in times.items() if not isinstance(o.type, Duration) and not o.is_flag} == set()
    asked = {"apply", "start", "restart", "rollback", "scale", "drain", "submit"}
    assert {f"{name} --timeout" for name in asked} <= times.keys()


def test_what_stands_when_nothing_is_said_is_a_duration_too() -> None:
    for name, option in _options().items():
        if isinstance(option.type, Duration) and isinstance(option.default, str | int | float):
            assert option.type.convert(option.default, option, None) >= 0, name


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("apply", "--timeout", "soon"), "--timeout"),
        (("start", "--timeout", "-5"), "--timeout"),
        (("scale", "m", "2", "--timeout", "1m30s"), "--timeout"),
        (("drain", "m", "--timeout", "inf"), "--timeout"),
        (("submit", "s", "--wait", "--timeout", "nan"), "--timeout"),
        (("jobs", "purge", "--older-than", "1w"), "--older-than"),
        (("machine", "join", "m", "--expires", "never"), "--expires"),
        (("top", "--interval", "often"), "--interval"),
    ],
)
def test_what_is_refused_names_the_option_and_its_form(tmp_path: Path, words: tuple[str, ...], option: str) -> None:
    done = CliRunner().invoke(cli, ["-C", str(tmp_path), *words])
    assert done.exit_code == 2
    assert f"'{option}'" in done.stderr or f"{option} " in done.stderr
    assert "write seconds, or 500ms, 60s, 5m, 2h, 7d" in done.stderr


@pytest.mark.parametrize("text", ["60s", "1m", "90", "0.5h"])
def test_what_is_taken_goes_on_to_the_command(tmp_path: Path, text: str) -> None:
    done = CliRunner().invoke(cli, ["-C", str(tmp_path), "apply", "-y", "--timeout", text])
    assert "no such file" in str(done.exception), "it looked for emp.yaml"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("machine", "join", "m", "--expires", "500ms"), "500ms is not in the range 1 s to 1e+09 s"),
        (("top", "--interval", "2h"), "2h is not in the range 0.2 s to 3600 s"),
    ],
)
def test_a_range_is_told_in_seconds(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(cli, ["-C", str(tmp_path), *words])
    assert (done.exit_code, told in done.stderr) == (2, True)


@pytest.mark.parametrize(("since", "ago_ms"), [("90", 90_000), ("500ms", 500), ("1.5m", 90_000), ("2d", 172_800_000)])
def test_the_journal_takes_ages_as_all_others_do(since: str, ago_ms: int) -> None:
    assert wanted(NOW_MS, since=since).since_ms == NOW_MS - ago_ms


def test_eight_digits_are_a_day_to_the_journal() -> None:
    assert wanted(NOW_MS, since="19700112").since_ms == 950_400_000
