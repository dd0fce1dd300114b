"""ComfyUI: a checkout, a service (the real one or the twin), a client, a peer with faults, workflows."""
