"""Two slots at work at once, each job's pictures of a colour of its own: every artifact shows its own job's colour.

The service takes "the highest counter there + 1" without a lock, as ComfyUI does. Tried on the real program, one
checkout and output folder for two slots, 100 jobs of 4 pictures: 40 of 400 were wrong before runs had marks
(docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.comfyui import ComfyUI
from emp_orch.connectors.comfyui.run import attempt
from support.redis.server import eventually, free_port
from support.worker.connector import Stage, job_of
from support.worker.processes import Daemon

JOBS, PICTURES = 100, 4


def colour_of(number: int) -> int:
    return (number * 7919 + 13) % 0xFFFFFF


def payload(number: int) -> dict[str, Any]:
    picture = {"width": 64, "height": 64, "batch_size": PICTURES, "color": colour_of(number)}
    return {
        "workflow": {
            "1": {"class_type": "EmptyImage", "inputs": picture},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
        }
    }


def shown(png: bytes) -> int | None:
    """The colour of the first pixel: no filter changes that one. None of a file that another slot was writing over."""
    try:
        return _first_pixel(png)
    except (struct.error, zlib.error):
        return None


def _first_pixel(png: bytes) -> int:
    data, at = b"", 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += 12 + size
    row = zlib.decompress(data)
    return int.from_bytes(row[1:4], "big")


@contextlib.contextmanager
def two_slots(tmp_path: Path, *folders: str) -> Iterator[list[str]]:
    daemons, urls = [], []
    try:
        for slot, folder in enumerate(folders):
            port = free_port()
            argv = ("simulate", "--port", str(port), "--dir", folder, "--cache")
            daemons.append(Daemon(tmp_path, f"slot-{slot}", *argv))
            urls.append(f"http://127.0.0.1:{port}")
        for daemon in daemons:
            eventually(lambda d=daemon: "simulation serves" in d.log)  # type: ignore[misc]
        yield urls
    finally:
        for daemon in daemons:
            daemon.kill()


async def wrong_ones(stage: Stage, urls: list[str], jobs: int = JOBS) -> list[str]:
    """Run `jobs` jobs, as many at once as there are slots; the artifacts that are not their job's."""
    numbers, seen = iter(range(jobs)), 0
    wrong: list[str] = []

    async def slot(url: str) -> None:
        nonlocal seen
        connector = ComfyUI(url, {})
        try:
            for number in numbers:
                mine = Stage(stage.folder, job_of(payload(number), job_id=f"job-{number}"))
                outputs = (await connector.run(mine.run())).outputs
                seen += len(outputs)
                names = [o.name for o in outputs]
                assert len(set(names)) == PICTURES and all(n.startswith("ComfyUI_") for n in names)
                wrong.extend(f"job-{number} {o.name}" for o in outputs if shown(mine.saved(o)) != colour_of(number))
        finally:
            await connector.close()

    await asyncio.gather(*map(slot, urls))
    assert seen == jobs * PICTURES
    return wrong


@pytest.mark.parametrize("folders", [("one", "one"), ("slot-0", "slot-1")], ids=["one folder", "folders of their own"])
async def test_no_artifact_is_another_jobs(tmp_path: Path, folders: tuple[str, str]) -> None:
    stage = Stage(tmp_path / "artifacts", job_of({}))
    with two_slots(tmp_path, *folders) as urls:
        assert await wrong_ones(stage, urls) == []


async def test_without_marks_the_race_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would prove nothing."""
    monkeypatch.setattr(attempt, "marked", lambda workflow, _: workflow)
    stage = Stage(tmp_path / "artifacts", job_of({}))
    with two_slots(tmp_path, "one", "one") as urls:
        try:
            wrong = await wrong_ones(stage, urls)
        except RunFailed as e:
            # A file was written over while it was served, and the rest never came: the race, too.
            wrong = [repr(e)]
        assert wrong != []


async def test_what_was_copied_does_not_stay_in_the_services_folder(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "artifacts", job_of(payload(1)))
    with two_slots(tmp_path, "one") as (url,):
        connector = ComfyUI(url, {"tidy": {"keep": "0s"}})
        other = tmp_path / "one" / "output" / "ComfyUI_00007_.png"
        other.touch()
        outputs = (await connector.run(stage.run())).outputs
        assert [o.name for o in outputs] == [f"ComfyUI_0000{n}_.png" for n in range(1, PICTURES + 1)]
        report = await connector.probe()
        assert report.output_folder == str(other.parent)
        assert list(other.parent.rglob("*.png")) == [other]
        await connector.close()
