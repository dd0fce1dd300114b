"""How a workflow comes to say where its inputs were put, and what is removed behind a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from emp_orch.connectors.comfyui.files.inputs import LEFTOVERS_S, Inputs, referring
from emp_orch.connectors.comfyui.server.session import Session

PLACES = {"photo.png": "emp-job-j-1/photo.png", "set/a.png": "emp-job-j-1/set/a.png", "1": "emp-job-j-1/1"}


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ({"image": "photo.png"}, {"image": "emp-job-j-1/photo.png"}),
        ({"image": "photo.png [input]"}, {"image": "emp-job-j-1/photo.png [input]"}),
        ({"video": "set/a.png", "upload": "image"}, {"video": "emp-job-j-1/set/a.png", "upload": "image"}),
        ({"directory": "set"}, {"directory": "emp-job-j-1/set"}),
        ({"files": ["photo.png", "other.png"]}, {"files": ["emp-job-j-1/photo.png", "other.png"]}),
        ({"deep": {"x": ["photo.png"]}}, {"deep": {"x": ["emp-job-j-1/photo.png"]}}),
        ({"image": ["1", 0], "text": "1"}, {"image": ["1", 0], "text": "emp-job-j-1/1"}),
        ({"text": "a photo.png", "steps": 1}, {"text": "a photo.png", "steps": 1}),
    ],
)
def test_a_literal_that_means_an_input_says_where_it_is(said: dict[str, Any], sent: dict[str, Any]) -> None:
    workflow = {"1": {"class_type": "X", "inputs": said}, "2": "no node"}
    assert referring(workflow, PLACES) == {"1": {"class_type": "X", "inputs": sent}, "2": "no node"}
    assert workflow["1"] == {"class_type": "X", "inputs": said}, "the job's own stays as it was"


def test_without_inputs_a_workflow_is_sent_as_it_is() -> None:
    workflow = {"1": {"class_type": "X", "inputs": {"image": "photo.png"}}}
    assert referring(workflow, {}) is workflow


async def test_what_a_lost_worker_left_goes_after_a_day_and_nothing_else(tmp_path: Path) -> None:
    old = time.time() - LEFTOVERS_S - 1
    folder = tmp_path / "input"
    for name in ("emp-job-a-1", "emp-job-new-1", "emp-job-x", "mine", "emp-jobs-1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x.png").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (folder / "emp-job-link-1").symlink_to(tmp_path / "elsewhere")
    (folder / "emp-job-file-1").write_bytes(b"")
    for path in folder.iterdir():
        if "new" not in path.name:
            os.utime(path, (old, old), follow_symlinks=False)
    await Inputs(Session("http://127.0.0.1:1")).remove_leftovers(str(folder))
    left = {"emp-job-new-1", "emp-job-x", "mine", "emp-jobs-1", "emp-job-link-1", "emp-job-file-1"}
    assert {path.name for path in folder.iterdir()} == left and (tmp_path / "elsewhere").exists()
    await Inputs(Session("http://127.0.0.1:1")).remove_leftovers("")
