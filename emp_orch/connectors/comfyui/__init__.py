"""The adapter to ComfyUI: its HTTP and WebSocket protocol, and what a run of a workflow made.

Knows ComfyUI's API and nothing of queues, leases or Redis; whoever is not a connector imports `ComfyUI` alone.
"""

from emp_orch.connectors.comfyui.connector import ComfyUI

__all__ = ["ComfyUI"]
