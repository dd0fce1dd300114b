"""The extension, in a supervisord that kills itself in the midst of a start, before the step that `KILLED_AT` names.

Loaded by a bare supervisord (supervision.py) in the extension's place. `KILLED_IN` is the number of the start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from emp_orch import lifemark
from emp_orch.machine.supervision import extension, gate

STEPS = ("spawn", "identity", "rename", "log mark", "line", "parent")


def make(supervisord: Any, **more: str) -> extension.Namespace:
    made = extension.make(supervisord, **more)
    step, starts = os.environ["KILLED_AT"], int(os.environ["KILLED_IN"])
    seen = 0

    def before(
        here: str, go_on: Callable[..., Any], which: Callable[..., bool] = lambda *_: True
    ) -> Callable[..., Any]:
        def stepped(*args: Any, **named: Any) -> Any:
            nonlocal seen
            if here == step and which(*args):
                seen += 1
                if seen == starts:
                    os.kill(os.getpid(), signal.SIGKILL)
            return go_on(*args, **named)

        return stepped

    module = sys.modules[gate.__name__]
    module.subprocess = _With(module.subprocess, Popen=before("spawn", module.subprocess.Popen))  # type: ignore[attr-defined]
    module.os = _With(os, write=before("line", os.write, lambda _, text: text == b"\n"))  # type: ignore[attr-defined]
    gate.launch.leave = before("identity", lifemark.leave)  # type: ignore[attr-defined]
    gate.launch.leave_log_mark = before("log mark", lifemark.leave_log_mark)  # type: ignore[attr-defined]
    lifemark.os = _With(os, replace=before("rename", os.replace, lambda _, to: "/run/" in to))  # type: ignore[assignment, attr-defined]
    supervisord.options.close_child_pipes = before("parent", supervisord.options.close_child_pipes)
    return made


class _With:
    """A module with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(vars(module) | names)
