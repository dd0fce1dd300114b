"""Services that emp ships: the simulation service, which speaks ComfyUI's protocol."""
