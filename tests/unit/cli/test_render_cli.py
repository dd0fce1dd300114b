"""`emp render` of a fleet with containers, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.docker.compose import read

TEXT = """\
version: 1
name: farm
redis: {url: 'redis://u:hunter2@127.0.0.1:6379/2'}
hosts: {near: {docker: 'unix:///run/near.sock'}}
services:
  comfyui: {scale: per_gpu, builtin: simulation, port: 8188, env: {TOKEN: {env: TOKEN}}}
defaults: {services: [comfyui]}
machines:
  plain: {}
  boxed: {runtime: compose}
  other: {runtime: compose, host: near, publish: [comfyui], ports: {comfyui: 9000}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "emp.yaml").write_text(TEXT)
    return tmp_path


def emp(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "emp_orch", "-C", str(folder), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_out_writes_a_file_for_each_machine_and_each_host(folder: Path) -> None:
    done = emp(folder, "render", "--out", "files")
    assert (done.returncode, done.stderr) == (0, "")
    assert {p.name for p in (folder / "files").iterdir()} == {
        *("plain.supervisord.conf", "boxed.supervisord.conf", "other.supervisord.conf"),
        *("local.compose.yaml", "near.compose.yaml"),
    }
    assert "hunter2" not in "".join(p.read_text() for p in (folder / "files").iterdir())
    local = read((folder / "files" / "local.compose.yaml").read_text())
    assert list(local["services"]) == ["boxed"]
    assert local["services"]["boxed"]["environment"]["REDIS_URL"] == "redis://host.docker.internal:6379/2"


def test_one_host(folder: Path) -> None:
    done = emp(folder, "render", "--host", "near")
    assert done.returncode == 0
    assert read(done.stdout)["services"]["other"]["ports"] == ["127.0.0.1:9000:9000"]
    assert list(json.loads(emp(folder, "render", "--host", "near", "--json").stdout)) == ["near"]


def test_a_host_that_is_not_there(folder: Path) -> None:
    done = emp(folder, "render", "--host", "neer")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean near?" in done.stderr
    assert emp(folder, "render", "--host", "near", "--machine", "other").returncode == 2


def test_without_out_it_prints_what_machines_run(folder: Path) -> None:
    done = emp(folder, "render", "--json")
    assert list(json.loads(done.stdout)) == ["plain", "boxed", "other"]


POOLS = """\
api: {host: 0.0.0.0, token: {env: EMP_TOKEN}, machine_url: 'https://emp.example.com'}
pools:
  renders: {size: 0..4, num_gpus: 1, services: [comfyui], image: 'registry.example.com/emp-machine:1'}
  swarmed: {size: 1, num_gpus: 1, services: [comfyui], provider: swarm}
  here: {size: 1, num_gpus: 1, services: [comfyui]}
"""


def test_a_pool_for_kubernetes(folder: Path) -> None:
    (folder / "emp.yaml").write_text(TEXT + POOLS)
    done = emp(folder, "render", "--kubernetes", "renders")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in done.stdout
    kinds = [d["kind"] for d in yaml.safe_load_all(done.stdout)]
    assert kinds == [
        *("ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"),
        *("TriggerAuthentication", "ScaledObject"),
    ]
    assert "https://emp.example.com/api/pools/renders" in done.stdout
    written = emp(folder, "render", "--kubernetes", "renders", "--out", "files")
    assert written.returncode == 0
    assert [p.name for p in (folder / "files").iterdir()] == ["renders.kubernetes.yaml"]
    assert (folder / "files" / "renders.kubernetes.yaml").read_text() == done.stdout
    assert json.loads(emp(folder, "render", "--kubernetes", "renders", "--json").stdout) == {"renders": done.stdout}
    assert "http://10.0.0.5:1" in emp(folder, "render", "--kubernetes", "renders", "--api", "http://10.0.0.5:1").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kubernetes", "rendars"), ["no pool 'rendars'", "did you mean renders?"]),
        (("--kubernetes", "plain"), ["no pool 'plain'", "there are: renders, swarmed, here"]),
        (("--kubernetes", "swarmed"), ["its provider, swarm", "provider: join"]),
        (("--kubernetes", "renders", "--host", "near"), ["exclude each other"]),
        (("--kubernetes", "renders", "--api", "emp.example.com"), ["not the URL of an API"]),
        (("--api", "https://emp.example.com"), ["--kubernetes"]),
    ],
)
def test_what_is_no_pool_for_kubernetes(folder: Path, words: tuple[str, ...], said: list[str]) -> None:
    (folder / "emp.yaml").write_text(TEXT + POOLS)
    done = emp(folder, "render", *words)
    assert (done.returncode, done.stdout) == (2, "")
    for one in said:
        assert one in done.stderr


def test_an_image_that_no_registry_has_is_told(folder: Path) -> None:
    (folder / "emp.yaml").write_text(TEXT + POOLS)
    done = emp(folder, "render", "--kubernetes", "here")
    assert done.returncode == 0
    assert "no registry has emp-machine:" in done.stderr and "pools.here.image" in done.stderr


def test_boxes_must_find_the_api(folder: Path) -> None:
    (folder / "emp.yaml").write_text(TEXT + POOLS.replace(", machine_url: 'https://emp.example.com'", ""))
    done = emp(folder, "render", "--kubernetes", "renders")
    assert done.returncode == 2 and "api.machine_url" in done.stderr
    assert emp(folder, "render", "--kubernetes", "renders", "--api", "https://emp.example.com").returncode == 0
