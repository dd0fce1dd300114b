"""Where a ComfyUI writes, by its command line; what is read and removed there, which is what runs made and no more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from emp_orch.connectors.comfyui.files.marked import HERE_BYTES, content_of
from emp_orch.connectors.comfyui.files.tidy import Tidier
from emp_orch.connectors.comfyui.run.isolation import mark_of
from emp_orch.connectors.comfyui.server.folders import Folders, folders_of
from emp_orch.connectors.comfyui.server.protocol import File
from emp_orch.options.base import CannotLoad
from emp_orch.options.comfyui import Options, Tidy, options_of

MARK = mark_of("a run")
DAY_S = 86_400


@pytest.mark.parametrize(
    ("argv", "cwd", "output", "temp"),
    [
        (["/opt/C/main.py"], "", "/opt/C/output", "/opt/C/temp"),
        (["main.py", "--cpu"], "/opt/C", "/opt/C/output", "/opt/C/temp"),
        (["main.py"], "", "", ""),
        (["../C/main.py", "--output-directory", "out"], "/opt/x", "/opt/x/out", "/opt/C/temp"),
        (["main.py", "--output-directory=/s/0", "--temp-directory", "/s/0"], "", "/s/0", "/s/0/temp"),
        (["/opt/C/main.py", "--base-directory", "/b"], "", "/b/output", "/b/temp"),
        (["main.py", "--output-directory", "/a", "--output-directory", "/b"], "", "/b", ""),
        (["/opt/C/main.py", "--output-directory"], "", "/opt/C/output", "/opt/C/temp"),
        (["/opt/C/main.py", "--output-directory", "a\0b"], "/", "", "/opt/C/temp"),
        ([], "/", "", ""),
        ([7, None], "/", "", ""),
        (["/" + "x" * 5_000], "/", "", ""),
    ],
)
def test_the_folders_are_those_that_comfyui_takes(argv: list[object], cwd: str, output: str, temp: str) -> None:
    found = folders_of(argv, cwd)
    assert (found.output, found.temp) == (output, temp)


def test_inputs_lie_where_it_is_said_or_in_the_checkout() -> None:
    assert folders_of(["/opt/C/main.py"], "").input == "/opt/C/input"
    assert folders_of(["/opt/C/main.py", "--input-directory", "in"], "/x").input == "/x/in"
    assert folders_of(["/opt/C/main.py", "--base-directory=/b"], "").input == "/b/input"


def made(folder: Path, name: str, *, size: int = 10, age_s: float = 0.0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, times=(time.time() - age_s,) * 2)
    return path


def copied(path: Path, folder: Path) -> tuple[File, int]:
    subfolder = path.parent.relative_to(folder).as_posix()
    return File(filename=path.name, subfolder="" if subfolder == "." else subfolder), path.stat().st_size


def test_what_was_copied_is_removed_when_its_time_is_over(tmp_path: Path) -> None:
    mine, older = made(tmp_path, f"sub/{MARK}a.png"), made(tmp_path, "a_00001_.png", age_s=9 * DAY_S)
    tidier, folders = Tidier(Tidy(keep_s=60)), Folders(output=str(tmp_path))
    tidier.add([copied(mine, tmp_path)], now=100)
    tidier.sweep(folders, 159, time.time())
    assert mine.exists() and not tidier.due(159)
    assert tidier.due(160) and tidier.sweep(folders, 160, time.time()) == 1
    assert not mine.exists() and older.exists(), "what no run marked is not touched, however old"


def test_no_more_is_kept_than_may_be_the_oldest_go(tmp_path: Path) -> None:
    files = [made(tmp_path, f"{MARK}{i}.png", size=100) for i in range(5)]
    tidier = Tidier(Tidy(keep_s=3600, most_bytes=250))
    tidier.add([copied(f, tmp_path) for f in files], now=0)
    assert tidier.sweep(Folders(output=str(tmp_path)), 1, time.time()) == 3
    assert [f.exists() for f in files] == [False, False, False, True, True]


def test_only_the_very_file_is_removed_and_no_link_followed(tmp_path: Path) -> None:
    """Another's folder may hold the same path, and a link may lead anywhere."""
    folder, outside = tmp_path / "output", tmp_path / "outside"
    changed = made(folder, f"{MARK}a.png", size=11)
    elsewhere = made(outside, f"{MARK}b.png")
    plain = made(folder, "unmarked.png")
    (folder / "link").symlink_to(outside)
    (folder / f"{MARK}c.png").symlink_to(plain)
    (folder / "ring").symlink_to(folder / "ring")
    tidier = Tidier(Tidy(keep_s=0))
    wanted = [
        (File(filename=f"{MARK}a.png"), 10),
        (File(filename=f"{MARK}b.png", subfolder="link"), 10),
        (File(filename=f"{MARK}b.png", subfolder="../outside"), 10),
        (File(filename=f"{MARK}c.png"), 10),
        (File(filename="unmarked.png"), 10),
        (File(filename=f"{MARK}a.png", subfolder="ring"), 10),
        (File(filename=f"{MARK}a\0.png"), 10),
        (File(filename=f"{MARK}a.png", subfolder="a\0b"), 10),
        (File(filename=f"{MARK}gone.png"), 10),
        (File(filename=f"{MARK}a.png", type="input"), 11),
    ]
    tidier.add(wanted, now=0)
    assert tidier.sweep(Folders(output=str(folder)), 1, time.time()) == 0
    assert changed.exists() and elsewhere.exists() and plain.exists() and (folder / f"{MARK}c.png").is_symlink()


def test_what_a_lost_worker_left_goes_after_a_day_but_no_model(tmp_path: Path) -> None:
    old = made(tmp_path, f"a/b/{MARK}old.png", age_s=2 * DAY_S)
    young, model = (
        made(tmp_path, f"{MARK}young.png", age_s=60),
        made(tmp_path, f"{MARK}lora.safetensors", age_s=9 * DAY_S),
    )
    tidier = Tidier(Tidy())
    assert tidier.due(0) and tidier.sweep(Folders(output=str(tmp_path)), 0, time.time()) == 1
    assert not old.exists() and young.exists() and model.exists()
    assert not tidier.due(3_599) and tidier.due(3_600), "once an hour"
    assert Tidier(Tidy()).sweep(Folders(), 0, time.time()) == 0, "a folder that is not known"


def test_options() -> None:
    assert options_of({}) == options_of({"tidy": True}) == Options()
    assert options_of({"tidy": False}).tidy is None
    assert options_of({"tidy": {"keep": "1h", "most": "1GiB"}}).tidy == Tidy(keep_s=3600, most_bytes=2**30)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tydi": True}, "tydi is unknown"),
        ({"tidy": {"kep": "1h"}}, r"tidy\.kep is unknown"),
        ({"tidy": {"keep": 3}}, r"tidy\.keep does not fit, found 3"),
        ({"tidy": {"most": "10m"}}, r"tidy\.most does not fit, found '10m'"),
        ({"tidy": "no"}, "tidy does not fit, found 'no'"),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(CannotLoad, match=words):
        options_of(given)


def test_a_runs_file_is_read_where_it_lies(tmp_path: Path) -> None:
    made(tmp_path, f"a/b/{MARK}a.png", size=10)
    assert content_of(str(tmp_path), File(filename=f"{MARK}a.png", subfolder="a/b")) == bytes(10)
    assert content_of(str(tmp_path), File(filename=f"{MARK}a.png", subfolder="a/b"), 9) is None


def test_nothing_else_is_read_by_a_runs_name(tmp_path: Path) -> None:
    """What stands under a run's name may be another program's doing: a link, a second name of a secret, a pipe."""
    folder, outside = tmp_path / "output", tmp_path / "outside"
    made(folder, "unmarked.png")
    made(outside, f"{MARK}a.png")
    (folder / "link").symlink_to(outside)
    (folder / f"{MARK}link.png").symlink_to(folder / "unmarked.png")
    (folder / f"{MARK}second.png").hardlink_to(folder / "unmarked.png")
    (folder / f"{MARK}folder.png").mkdir()
    os.mkfifo(folder / f"{MARK}pipe.png")
    os.truncate(made(folder, f"{MARK}large.png"), HERE_BYTES + 1)
    for file in (
        File(filename="unmarked.png"),
        File(filename=f"{MARK}a.png", subfolder="link"),
        File(filename=f"{MARK}a.png", subfolder="../outside"),
        File(filename=f"{MARK}a.png", subfolder=str(outside)),
        *(File(filename=f"{MARK}{name}.png") for name in ("link", "second", "folder", "pipe", "large", "gone")),
        File(filename=f"{MARK}a\0.png"),
        File(filename=f"{MARK}\ud800.png"),
        File(filename=f"{MARK}{'x' * 300}.png"),
        File(filename=""),
    ):
        assert content_of(str(folder), file) is None, file
    assert content_of(str(tmp_path / "no folder"), File(filename=f"{MARK}a.png")) is None
