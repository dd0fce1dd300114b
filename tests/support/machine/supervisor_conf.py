"""Rendered text, read by supervisord's own parser (supervisor.options.ServerOptions)."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from emp_orch.machine.launch import Launch
from emp_orch.render.quoting import in_double_quotes

PYTHON = "/opt/some python/bin/python3"


def parse(text: str, *, log_dir: str = "logs", python: str = PYTHON) -> ServerOptions:
    """What supervisord makes of `text`. `log_dir` is a name below a fresh folder. Raises SystemExit for bad text."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        logs = Path(folder) / log_dir
        logs.mkdir()
        file = Path(folder) / "supervisord.conf"
        file.write_text(text, encoding="utf-8")
        for name, value in {
            "EMP_PYTHON": in_double_quotes(python),
            "EMP_LOG_DIR": str(logs),
            "EMP_MACHINE_LOG": str(logs / "machine-m.log"),
            "EMP_ROOT": folder,
        }.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        options = ServerOptions()
        options.realize(["-c", str(file)], doc="")
        assert options.parse_warnings == []
        return options


def programs(options: ServerOptions) -> dict[str, Any]:
    """Every process that supervisord would run, by name; one in each group, named alike."""
    found = {}
    for group in options.process_group_configs:
        (process,) = group.process_configs
        assert group.name == process.name
        assert process.name not in found
        found[process.name] = process
    return found


def launch_of(process: Any) -> Launch:
    """What emp's launcher understands of a process' command line, split as supervisord splits it."""
    argv = shlex.split(process.command)
    assert argv[:3] == [PYTHON, "-m", "emp_orch.machine.launch"]
    return Launch(argv[3:])
