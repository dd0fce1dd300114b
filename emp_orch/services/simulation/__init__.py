"""The simulation service: ComfyUI's HTTP and WebSocket protocol, its files and its bad habits, without GPU or weights.

It is held to the original by tests/contract/comfyui, which run on both (docs/adr/0015). It knows nothing of fleets,
queues or Redis; `emp simulate` and `checkout.main` (ComfyUI's own command line) start it.
"""

from emp_orch.services.simulation.config import SimulationConfig
from emp_orch.services.simulation.server import prepare, serve

__all__ = ["SimulationConfig", "prepare", "serve"]
