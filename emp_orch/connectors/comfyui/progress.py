"""How far a run is, by the service's messages."""

from __future__ import annotations

from emp_orch.connectors.base import OnProgress
from emp_orch.connectors.comfyui.protocol import Message, Workflow
from emp_orch.jobs.model import Progress

# More is no count of steps; integers of JSON may be too large to divide or to write.
MAX_STEPS = 10**12


class ProgressOfRun:
    """Turns a run's messages into one fraction that never falls."""

    def __init__(self, workflow: Workflow, on_progress: OnProgress) -> None:
        self._classes = {i: str(n.get("class_type", i)) if isinstance(n, dict) else i for i, n in workflow.items()}
        self._begun: set[str] = set()
        self._cached: set[str] = set()
        self._best = 0.0
        self._tell = on_progress

    async def take(self, message: Message) -> None:
        data = message.data
        node = str(data.get("node", ""))
        words, part = self._classes.get(node, node), 0.0
        match message.type:
            case "execution_cached":
                cached = data.get("nodes")
                if isinstance(cached, list):
                    self._cached.update(n for n in cached if isinstance(n, str))
                return
            case "executing":
                self._begun.add(node)
            case "progress":
                value, most = data.get("value"), data.get("max")
                if not isinstance(value, int | float) or not isinstance(most, int | float):
                    return
                if not (0 < most <= MAX_STEPS and 0 <= value <= MAX_STEPS):
                    return
                self._begun.add(node)
                part = min(value / most, 1.0)
                words = f"{words} {value:g}/{most:g}"
            case _:
                return
        done = len(self._begun | self._cached) - 1 + part
        self._best = max(self._best, min(done / max(len(self._classes), 1), 1.0))
        await self._tell(Progress(fraction=round(self._best, 4), message=words))
