"""Which version of each peer is measured, and the libraries that its speed depends on."""

from __future__ import annotations

_FAST = ("hiredis==3.5.0", "uvloop==0.23.0")

# Each in a virtual environment of its own: their pins of redis-py exclude one another.
PYTHON: dict[str, tuple[str, ...]] = {
    "arq": ("arq==0.28.0", "redis==5.3.1", *_FAST),
    "saq": ("saq==0.26.4", "redis==7.4.1", "typing_extensions==4.16.0", *_FAST),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", *_FAST),
    "huey": ("huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0"),
}
NODE: dict[str, tuple[str, ...]] = {
    "bullmq": ("bullmq@6.7.0", "ioredis@6.0.0"),
    "pm2": ("pm2@7.0.4",),
}
