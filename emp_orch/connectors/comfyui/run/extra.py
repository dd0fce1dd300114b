"""What goes to ComfyUI beside a workflow: the job's extra_data and its secrets."""

from __future__ import annotations

from typing import Any

from emp_orch.connectors.base import Run


def extra_data_of(run: Run) -> dict[str, Any]:
    """`extra_data` of a run's request: preview_method, extra_pnginfo, … as the job has them, and its API keys."""
    given = run.job.payload.get("extra_data")
    return {**(given if isinstance(given, dict) else {}), **run.secrets}
