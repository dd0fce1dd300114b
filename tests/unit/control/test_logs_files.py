"""Which files belong to which component; reading, merging, clearing them. Never outside the logs folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.cli.inspect.logs import cleaned, prefix, size
from emp_orch.control.logs.files import clear, log_files, matches, resolve
from emp_orch.control.logs.follow import Logs
from emp_orch.control.logs.read import Line, Reader, last_lines
from emp_orch.errors import UsageError
from emp_orch.layout import Layout

M = "machine-box"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    logs = tmp_path / "logs"
    (logs / M).mkdir(parents=True)
    (logs / "api.log").write_text("2026-11-23 10:00:01.000 a1\n2026-11-23 10:00:03.000 a2\nTraceback\n")
    (logs / "redis.log").write_text("9:M 23 Nov 2026 10:00:02.000 * r1\n9:M 23 Nov 2026 10:00:04.000 * r2\n")
    (logs / "monitorEventStream.log").write_text('{"at":"2026-11-23T10:00:00.000Z","event":"x"}\n')
    (logs / f"{M}.log").write_text("2026-11-23 10:00:02,500 INFO started\n")
    (logs / M / "agent.log").write_text("2026-11-23 10:00:05,000 INFO agent\n")
    (logs / M / "comfyui-gpu0.log").write_text("")
    (logs / "notes.txt").write_text("mine")
    (logs / "notes.log").write_text("mine too")
    return Layout(tmp_path)


def names(layout: Layout, *wanted: str) -> list[str]:
    return [f.name for f in log_files(layout) if matches(f, wanted)]


def test_files_and_their_components(layout: Layout) -> None:
    assert [f.name for f in log_files(layout)] == [
        "redis",
        "api",
        "monitorEventStream",
        M,
        f"{M}/agent",
        f"{M}/comfyui-gpu0",
    ]
    assert names(layout) == ["redis", "api", M, f"{M}/agent", f"{M}/comfyui-gpu0"]
    assert names(layout, M) == [M, f"{M}/agent", f"{M}/comfyui-gpu0"]
    assert names(layout, f"{M}/agent", "monitorEventStream") == ["monitorEventStream", f"{M}/agent"]


def test_links_are_never_followed(layout: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.log").write_text("secret")
    (layout.logs / "machine-evil.log").symlink_to(outside / "secret.log")
    (layout.logs / "machine-worse").symlink_to(outside)
    (layout.logs / M / "linked.log").symlink_to(outside / "secret.log")
    assert not {"machine-evil", "machine-worse/secret", f"{M}/linked"} & {f.name for f in log_files(layout)}
    clear(log_files(layout))
    assert (outside / "secret.log").read_text() == "secret"


def test_names_are_resolved_and_near_ones_offered(layout: Layout) -> None:
    files = log_files(layout)
    assert resolve(("api", "box", "box/agent", "api"), files) == ("api", M, f"{M}/agent")
    assert resolve(("eventlog",), files) == ("eventlog",)
    with pytest.raises(UsageError) as e:
        resolve(("apy", "box/agnt", "../../etc/passwd", "/etc/passwd", "notes"), files)
    assert e.value.message.splitlines() == [
        "there is no component 'apy'; did you mean api?",
        "there is no component 'box/agnt'; did you mean box/agent?",
        "there is no component '../../etc/passwd'",
        "there is no component '/etc/passwd'",
        "there is no component 'notes'",
    ]


def test_lines_are_merged_in_time_order(layout: Layout) -> None:
    lines = list(Logs(layout, ("api", "redis", M)).last(100, unfinished=True))
    assert [line.text.rpartition(" ")[2] for line in lines] == ["a1", "r1", "started", "a2", "Traceback", "r2", "agent"]
    assert [line.text.rpartition(" ")[2] for line in Logs(layout, ("api", "redis")).last(2, unfinished=True)] == [
        "Traceback",
        "r2",
    ]
    assert list(Logs(layout, ()).last(0, unfinished=True)) == []


def test_a_file_without_any_time_keeps_its_order(layout: Layout) -> None:
    (layout.logs / "control.log").write_text("one\ntwo\nthree\n")
    assert [line.text for line in Logs(layout, ("control",)).last(2, unfinished=True)] == ["two", "three"]


def test_rotated_files_are_read_on(layout: Layout) -> None:
    (layout.logs / "api.log.1").write_text("2026-11-23 09:00:01.000 b1\n2026-11-23 09:00:02.000 b2\n")
    (layout.logs / "api.log.2").write_text("2026-11-23 08:00:01.000 c1\n")
    (layout.logs / "api.log.old").write_text("2026-11-23 07:00:01.000 d1\n")
    found = [line.text.rpartition(" ")[2] for line in Logs(layout, ("api",)).last(5, unfinished=True)]
    assert found == ["b1", "b2", "a1", "a2", "Traceback"][-5:]
    assert len(list(Logs(layout, ("api",)).last(50, unfinished=True))) == 6


def test_a_long_file_is_read_from_its_end(layout: Layout) -> None:
    path = layout.log("api")
    path.write_text("".join(f"2026-11-23 10:00:01.000 {i} {'x' * 300}\n" for i in range(5_000)))
    lines = [line.text.split()[2] for line in Logs(layout, ("api",)).last(500, unfinished=True)]
    assert lines == [str(i) for i in range(4_500, 5_000)]


def test_following_misses_and_repeats_nothing(layout: Layout) -> None:
    """Growth, an unfinished line, a rotation and a truncation, seen by one reader."""
    path = layout.log("control")
    path.write_text("one\ntw")
    reader = Reader(next(f for f in log_files(layout) if f.name == "control"), from_start=False)
    assert [line.text for line in reader.tail(5, unfinished=False)] == ["one"]
    with path.open("a") as f:
        f.write("o\nthree\nfo")
    assert [line.text for line in reader.poll()] == ["two", "three"]
    with path.open("a") as f:
        f.write("ur\nfive\n")
    path.rename(path.with_name("control.log.1"))
    assert [line.text for line in reader.poll()] == ["four", "five"]
    path.write_text("six\n")
    assert [line.text for line in reader.poll()] == ["six"]
    with path.open("a") as f:
        f.write("seven\n")
    clear(f for f in log_files(layout) if f.name == "control")
    assert [line.text for line in reader.poll()] == []
    with path.open("a") as f:
        f.write("8\n")
    assert [line.text for line in reader.poll()] == ["8"]
    reader.close()


def test_clear_empties_in_place_and_says_so(layout: Layout) -> None:
    (layout.logs / "api.log.1").write_text("old\n")
    size_before = sum(f.path.stat().st_size for f in log_files(layout)) + len("old\n")
    with layout.log("api").open("a") as writer:
        done = clear(log_files(layout))
        writer.write("after\n")
    assert done.files == ("redis", "api", "monitorEventStream", M, f"{M}/agent", f"{M}/comfyui-gpu0")
    assert (done.removed, done.failed) == (1, ())
    assert done.freed == size_before
    assert layout.log("api").read_bytes() == b"after\n"
    assert (layout.logs / "notes.txt").read_text() == "mine"
    assert (layout.logs / "notes.log").read_text() == "mine too"


def test_lines_fit_for_a_terminal() -> None:
    assert cleaned("\x1b[31mred\x1b[0m and \x1b]0;title\x07plain\x07") == "red and plain"
    assert cleaned(" 10%|#   |\r 50%|##  |\r100%|####|\r") == "100%|####|"
    assert cleaned("tab\there\x9b2J") == "tab\there2J"


def test_prefixes_keep_their_colour() -> None:
    assert prefix("api", 5, colour=False) == "api   | "
    assert prefix("api", 5, colour=True) == prefix("api", 5, colour=True)
    assert prefix("api", 5, colour=True).startswith("\x1b[")


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536 * 1024, 5 * 1024**3)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "5.0 GiB",
    ]


def test_last_lines_of_nothing() -> None:
    assert list[Line](last_lines([], 10, unfinished=True)) == []
