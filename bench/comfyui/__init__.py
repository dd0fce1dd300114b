"""What emp adds to a trivial workflow, beside a client that talks to ComfyUI itself."""
