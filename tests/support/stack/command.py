"""`emp` as a user types it in a folder, with the variables that are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def emp(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("NUM_GPUS", "HUB_REDIS_URL", "REDIS_URL")}
    return subprocess.run(
        [sys.executable, "-m", "emp_orch", *words],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
