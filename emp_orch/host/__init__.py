"""What this host knows of itself: processes, ports, GPUs, disk, users, proxies, whose a folder is. No fleet, no Redis,
no Docker. Every room may call it, but the pure ones (`fleet`, `jobs`, `render`).
"""
