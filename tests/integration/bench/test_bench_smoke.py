"""The benches work: emp's side of them, with numbers too small to mean anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.tree import ROOT

# Those of emp: no peer is installed for this.
ROWS = ("emp", "emp, several a claim", "emp worker")


def bench(*options: str, cache: Path, what: str = "queue") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EMP_BENCH_CACHE": str(cache)}
    argv = [sys.executable, "-m", f"bench.{what}", *options]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(autouse=True)
def _a_redis() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")


def test_all_jobs_end_and_the_figures_come_out(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    only = [word for row in ROWS for word in ("--only", row)]
    done = bench("--size", "smoke", *only, "--json", str(written), cache=tmp_path)
    assert done.returncode == 0, done.stderr
    for head in ("| peer", "| aim", "| one claim of emp", "| plain Redis"):
        assert head in done.stdout
    assert "dispatch p99" in done.stdout and "no figure" in done.stdout  # no peers: nothing to judge most aims by

    found: dict[str, Any] = msgspec.json.decode(written.read_bytes())
    report = found["report"]
    assert report["missing"] == []
    assert {s["peer"]: s["drain"]["left"] for s in report["samples"]} == dict.fromkeys(ROWS, 0)
    sample = report["samples"][0]
    assert sample["jobs"] >= 20
    figures = {**sample["drain"], **sample["dispatch"], **sample["many"]}
    for name in ("one_per_s", "many_per_s", "noop_per_s", "enqueue_us", "process_us", "dispatch_p50_ms"):
        assert figures[name] > 0, name
    assert figures["dispatch_p99_ms"] >= figures["dispatch_p50_ms"]
    assert [c["redis_us"] >= 0 and c["client_us"] > 0 for c in report["claims"]] == [True] * 4
    assert {v["met"] for v in found["verdicts"] if v["aim"]["against"] == "the best peer's"} == {None}


def test_an_unknown_peer_is_named(tmp_path: Path) -> None:
    done = bench("--size", "smoke", "--only", "nosuch", cache=tmp_path)
    assert done.returncode == 2
    assert "no peer nosuch" in done.stderr and "huey" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_reconciler_is_measured(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    done = bench("--size", "smoke", "--no-pm2", "--json", str(written), cache=tmp_path, what="reconcile")
    assert done.returncode == 0, done.stderr
    for head in ("| kill -9", "| machines × workers", "| a change in a fleet of 3 machines", "| aim"):
        assert head in done.stdout

    found: dict[str, Any] = msgspec.json.decode(written.read_bytes())
    report = found["report"]
    assert report["missing"] == []
    healed = {h["what"]: h["took_ms"] for h in report["healing"]}
    assert set(healed) == {"emp", "supervisord alone", "emp worker", "emp worker, started alone"}
    assert all(len(took) == 1 and took[0] > 0 for took in healed.values())
    assert [(c["machines"], c["workers"]) for c in report["costs"]] == [(3, 6), (6, 12)]
    for cost in report["costs"]:
        assert cost["noop_ticks"] >= 3 and cost["first_ms"] > 0 and cost["noop_cpu_ms"] > 0 and cost["rss_mib"] > 0
    detection = report["detection"]
    assert len(detection["status_ms"]) == len(detection["api_ms"]) == 2
    assert min(*detection["status_ms"], *detection["api_ms"]) > 0


def test_the_live_stream_is_measured(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    done = bench("--size", "smoke", "--json", str(written), cache=tmp_path, what="stream")
    assert done.returncode == 0, done.stderr
    assert "| stream" in done.stdout and "whole state / emp" in done.stdout

    report: dict[str, Any] = msgspec.json.decode(written.read_bytes())
    assert report["missing"] == []
    crowds = {s["what"]: s for s in report["streamed"]}
    assert [s["clients"] for s in crowds.values()] == [20, 3, 3, 3]
    for name, crowd in crowds.items():
        assert (crowd["told"], crowd["gaps"], crowd["snapshots"]) == (crowd["changes"], 0, 0), name
        assert 0 < crowd["p50_ms"] <= crowd["p99_ms"], name
        assert crowd["bytes"] > 0 and crowd["rss_after_mib"] > 0, name


def test_the_page_is_measured(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed")
    written = tmp_path / "bench.json"
    done = bench("--size", "smoke", "--json", str(written), cache=tmp_path, what="page")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "| view" in done.stdout and "| while it changes" in done.stdout

    report: dict[str, Any] = msgspec.json.decode(written.read_bytes())
    assert report["complaints"] == []
    views = {v["name"]: v for v in report["views"]}
    assert set(views) == {"overview", "drift", "machines", "machines/m-1", "jobs", "timeline"}
    for name, view in views.items():
        assert view["changes"] == 20 and len(view["paints_ms"]) == 1 and view["paints_ms"][0] > 0, name
        assert 0 < view["changing"]["busy_s"] < view["changing"]["seconds"], name
    # Whatever the fleet's size, what is not seen is not in the document.
    assert max(v["elements"] for v in views.values()) < 6_000
    for moved in report["moved"]:
        assert len(moved["frames_ms"]) > 1 and len(moved["typed_ms"]) == 4


def test_a_pool_that_churns_loses_nothing(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    done = bench("--size", "smoke", "--json", str(written), cache=tmp_path, what="pools")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "| stretch" in done.stdout and "| a pool through the gate" in done.stdout

    report: dict[str, Any] = msgspec.json.decode(written.read_bytes())
    assert set(report["ends"]) == {"pool", "named"}
    for name, ends in report["ends"].items():
        assert ends["submitted"] == ends["once"] == ends["completed"] > 0, name
        assert (ends["badly"], ends["missed"]) == ({}, 0), name
    churned = report["churned"]
    assert churned["joined"] == churned["left"] == churned["vanished"] == len(churned["forgotten_s"]) > 0
    assert churned["left_over"] == churned["faults"] == []
    for stretch in report["stretches"]:
        assert stretch["spent"]["wall_s"] > 0 and stretch["spent"]["commands"]["evalsha"] > 0, stretch["what"]


def test_a_trivial_workflow_is_measured(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    done = bench("--size", "smoke", "--json", str(written), cache=tmp_path, what="comfyui")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "| a trivial workflow" in done.stdout and "| aim" in done.stdout

    report: dict[str, Any] = msgspec.json.decode(written.read_bytes())
    took = {t["what"]: t["ms"] for t in report["took"]}
    assert [len(ms) for ms in took.values()] == [3, 3, 3, 2]
    assert all(one > 0 for ms in took.values() for one in ms)
