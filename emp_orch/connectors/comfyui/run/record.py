"""What a run's own messages tell of it: its record, where they are whole, without asking for the history."""

from __future__ import annotations

from typing import Any

from emp_orch.connectors.comfyui.server.protocol import Message, Record, Status, Workflow


class Told:
    """The messages of one run, in their order, over one connection that did not break.

    ComfyUI sends `executed` for each node that gave something, with what its history will have. Some versions do not
    for the result of an earlier run, and a node that became others goes by their ids: then, and for what did not
    succeed, there is no record, and the history is to be asked.
    """

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._outputs: dict[str, dict[str, Any]] = {}
        self._whole = False

    def take(self, message: Message) -> Record | None:
        """The record, once the last message has come that makes it whole."""
        data = message.data
        node, output = str(data.get("node")), data.get("output")
        match message.type:
            case "execution_start":
                self._outputs, self._whole = {}, True
            case "execution_cached":
                self._whole = self._whole and data.get("nodes") == []
            case "executed":
                if node in self._workflow and isinstance(output, dict):
                    self._outputs[node] = output
                else:
                    self._whole = False
            case "execution_success" if self._whole:
                return Record(outputs=self._outputs, status=Status(status_str="success", completed=True))
        return None
