"""How far a run is, by the service's messages; each node weighs what its class took the last times."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from emp_orch.connectors.base import OnProgress
from emp_orch.connectors.comfyui.server.protocol import Message, Workflow
from emp_orch.jobs.document.model import Progress

# More is no count of steps; integers of JSON may be too large to divide or to write.
MAX_STEPS = 10**12
# Classes of nodes that are remembered.
MAX_CLASSES = 2_000
# How much the latest run counts: a first one that loaded a model is soon forgotten.
_NEWEST = 0.5
# No node weighs nothing: some are measured at a time too short to tell.
_LEAST_S = 0.001

_Key = tuple[str, bool]


class Costs:
    """Seconds that nodes took, by class; by step where the node says how many steps it takes."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, float] = OrderedDict()

    def learn(self, node: Any, seconds: float) -> None:
        key, steps = _measure(node)
        each = max(seconds, _LEAST_S) / steps
        before = self._known.get(key)
        self._known[key] = each if before is None else before + _NEWEST * (each - before)
        self._known.move_to_end(key)
        while len(self._known) > MAX_CLASSES:
            self._known.popitem(last=False)

    def weights(self, workflow: Workflow) -> dict[str, float]:
        """What each node may take. One of an unknown class: as much as the others do on average."""
        known: dict[str, float | None] = {}
        for node_id, node in workflow.items():
            key, steps = _measure(node)
            each = self._known.get(key)
            known[node_id] = None if each is None else each * steps
        measured = [seconds for seconds in known.values() if seconds is not None]
        average = sum(measured) / len(measured) if measured else 1.0
        return {node_id: average if seconds is None else seconds for node_id, seconds in known.items()}


def _measure(node: Any) -> tuple[_Key, float]:
    """What a node is remembered by, and how many steps of that it takes."""
    if not isinstance(node, dict):
        return ("", False), 1
    inputs = node.get("inputs")
    steps = inputs.get("steps") if isinstance(inputs, dict) else None
    by_step = isinstance(steps, int) and not isinstance(steps, bool) and 0 < steps <= MAX_STEPS
    return (str(node.get("class_type", ""))[:200], by_step), steps if by_step and isinstance(steps, int) else 1


class ProgressOfRun:
    """Turns a run's messages into one fraction that never falls."""

    def __init__(
        self,
        workflow: Workflow,
        on_progress: OnProgress,
        costs: Costs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workflow = workflow
        self._classes = {i: str(n.get("class_type", i)) if isinstance(n, dict) else i for i, n in workflow.items()}
        self._costs = costs or Costs()
        self._weights = self._costs.weights(workflow)
        self._clock = clock
        self._begun_at = 0.0
        self._now = ""
        self._done: set[str] = set()
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
                    self._done.update(n for n in cached if isinstance(n, str))
                return
            case "executing":
                self._begin(node)
            case "progress":
                value, most = data.get("value"), data.get("max")
                if not isinstance(value, int | float) or not isinstance(most, int | float):
                    return
                if not (0 < most <= MAX_STEPS and 0 <= value <= MAX_STEPS):
                    return
                self._begin(node)
                part = min(value / most, 1.0)
                words = f"{words} {value:g}/{most:g}"
            case _:
                return
        await self._told(part, words)

    async def over(self) -> None:
        """The last node has ended."""
        self._begin("")

    def _begin(self, node: str) -> None:
        """`node` is at work; what was until now has taken its time."""
        if node == self._now:
            return
        now = self._clock()
        if self._now in self._workflow:
            self._costs.learn(self._workflow[self._now], now - self._begun_at)
            self._done.add(self._now)
        self._now, self._begun_at = node, now

    async def _told(self, part: float, words: str) -> None:
        whole = sum(self._weights.values()) or 1.0
        done = sum(weight for node, weight in self._weights.items() if node in self._done and node != self._now)
        fraction = (done + part * self._weights.get(self._now, 0.0)) / whole
        self._best = max(self._best, min(fraction, 1.0))
        await self._tell(Progress(fraction=round(self._best, 4), message=words))
