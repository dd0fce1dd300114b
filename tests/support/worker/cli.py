"""`emp` as a process in a folder whose settings name a Redis, without a control plane."""

from __future__ import annotations

import subprocess
from pathlib import Path

from emp_orch import settings
from emp_orch.layout import Layout
from support.worker.processes import EMP, KEYS


def write_settings(folder: Path, url: str) -> None:
    layout = Layout(folder)
    layout.control.mkdir(parents=True)
    listen = settings.Listen(host="127.0.0.1", port=1)
    settings.save(
        layout,
        settings.Settings(
            fleet="f",
            redis_url=url,
            machine_redis_url=url,
            embedded=False,
            redis_port=0,
            prefix=KEYS.prefix,
            artifacts=layout.artifacts_url,
            api=listen,
            monitor=listen,
        ),
    )


def emp(folder: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*EMP, "-C", str(folder), *argv], capture_output=True, text=True, timeout=60, input=stdin)
    assert "Traceback" not in done.stderr, done.stderr
    return done
