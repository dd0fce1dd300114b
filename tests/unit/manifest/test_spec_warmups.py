"""`warmup` of a service: a file beside emp.yaml, read and checked with it, and carried to the machines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from emp_orch.fleet.desired.machines import config_hash, desired_machines
from emp_orch.fleet.model.fleet import Fleet, MachineId
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.manifest.load import load
from emp_orch.manifest.text.problems import ConfigError
from emp_orch.store.fleet.configs import MachineConfig

NODE = '{"1": {"class_type": "SaveImage", "inputs": {}}}'
YAML = """\
version: 1
name: f
services:
  comfyui: {{scale: per_gpu, command: x, port: 8188, {more}}}
machines:
  m: {{runtime: process, num_gpus: 1, services: [comfyui]}}
"""


def fleet(folder: Path, text: str | None, more: str = "warmup: sub/w.json") -> Fleet:
    (folder / "sub").mkdir(exist_ok=True)
    if text is not None:
        (folder / "sub" / "w.json").write_text(text)
    (folder / "emp.yaml").write_text(YAML.format(more=more))
    return load(folder / "emp.yaml", {})


@pytest.mark.parametrize("text", [NODE, f'{{"workflow": {NODE}}}', f'{{"prompt": {NODE}, "client_id": "x"}}'])
def test_every_form_of_a_workflow_is_taken(tmp_path: Path, text: str) -> None:
    (service,) = fleet(tmp_path, text).services.values()
    assert msgspec.json.decode(service.warmup) == {"workflow": msgspec.json.decode(NODE)}


@pytest.mark.parametrize(
    ("text", "more", "told"),
    [
        (None, "warmup: sub/w.json", 'cannot read "sub/w.json": No such file or directory'),
        (NODE, "warmup: sub", 'cannot read "sub": Is a directory'),
        ("{", "warmup: sub/w.json", '"sub/w.json" is not JSON'),
        ("[" * 5000, "warmup: sub/w.json", '"sub/w.json" is not JSON'),
        ('{"1": {"inputs": {}}}', "warmup: sub/w.json", "has no class_type"),
        ('{"nodes": [], "links": []}', "warmup: sub/w.json", "editor's format"),
        (" " * 300_000, "warmup: sub/w.json", "is larger than 256 KiB"),
        (NODE, "warmup: sub/w.json, connector: http, connector_options: {path: /x}", "does not have that connector"),
        (
            f'{{"prompt": {NODE}, "extra_data": {{"api_key_comfy_org": "comfyui-0123456789"}}}}',
            "warmup: sub/w.json",
            "holds a key of ComfyUI's API",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_place(tmp_path: Path, text: str | None, more: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fleet(tmp_path, text, more)
    (problem,) = caught.value.problems
    assert told in problem.message and (problem.line, problem.path) == (4, "services.comfyui.warmup")
    assert "comfyui-0123456789" not in problem.text


def test_it_travels_with_the_machine_and_another_content_is_another_configuration(tmp_path: Path) -> None:
    one, other = fleet(tmp_path, NODE), fleet(tmp_path, NODE.replace("SaveImage", "PreviewImage"))
    before, after = (desired_machines(f)[MachineId("m")] for f in (one, other))
    assert config_hash(before) != config_hash(after)
    worker = before.programs[-1].argv
    (name,) = before.warmups
    assert worker[worker.index("--warmup") + 1] == f"comfyui={name}"
    (tmp_path / "machine").mkdir()
    folder = MachineFolder(tmp_path / "machine")
    for machine in (before, after):
        folder.write_files(MachineConfig(generation=1, digest="", supervisord="", machine=machine))
        assert [p.relative_to(folder.root).as_posix() for p in folder.warmups.iterdir()] == [*machine.warmups]
        assert [p.read_text() for p in folder.warmups.iterdir()] == [*machine.warmups.values()]
    bare = msgspec.structs.replace(after, warmups={})
    folder.write_files(MachineConfig(generation=2, digest="", supervisord="", machine=bare))
    assert not list(folder.warmups.iterdir())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", ("--discover", "comfyui=60")),
        ("discover: 5m", ("--discover", "comfyui=300")),
        ("discover: 0s", ()),
        ("connector: http, connector_options: {path: /x}", ()),
    ],
)
def test_how_often_a_service_is_asked_is_the_workers_argument(
    tmp_path: Path, more: str, words: tuple[str, ...]
) -> None:
    argv = desired_machines(fleet(tmp_path, None, more))[MachineId("m")].programs[-1].argv
    assert tuple(w for i, w in enumerate(argv) if "--discover" in argv[max(0, i - 1) : i + 1]) == words


def test_affinity_off_is_the_workers_argument(tmp_path: Path) -> None:
    made = fleet(tmp_path, None, "")
    assert "--no-affinity" not in desired_machines(made)[MachineId("m")].programs[-1].argv
    off = msgspec.structs.replace(made, jobs=msgspec.structs.replace(made.jobs, affinity=False))
    assert "--no-affinity" in desired_machines(off)[MachineId("m")].programs[-1].argv
