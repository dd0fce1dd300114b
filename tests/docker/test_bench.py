"""The bench of containers works, with numbers too small to mean anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.docker.engine import Engine
from support.tree import ROOT


def test_every_turn_is_measured(engine: Engine, machine_image: str, tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    argv = [sys.executable, "-m", "bench.containers", "--image", machine_image, "--rounds", "1"]
    argv += ["--machines", "1", "--gpus", "1", "--json", str(written)]
    done = subprocess.run(argv, cwd=ROOT, env=engine.env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    turns = json.loads(written.read_text())["turns"]
    assert len({t["what"] for t in turns}) == 3 and all(t["idle_s"] > 0 and t["returned_s"] > 0 for t in turns)
    assert "docker compose up --wait" in done.stdout
