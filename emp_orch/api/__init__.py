"""The HTTP API on :3331: state, events (SSE), jobs, commands."""
