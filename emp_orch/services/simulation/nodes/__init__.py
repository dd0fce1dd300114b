"""The node classes that the simulation knows: by name, with what they take, make and do."""

from emp_orch.services.simulation.nodes import pictures, sampling, trouble
from emp_orch.services.simulation.nodes.model import NodeType

NODES: dict[str, NodeType] = {**sampling.NODES, **pictures.NODES, **trouble.NODES}

__all__ = ["NODES", "NodeType"]
