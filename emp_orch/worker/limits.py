"""Times and sizes that the worker's modules share."""

from __future__ import annotations

# How long a service may take to stop a run, before it is left to itself.
INTERRUPT_S = 10.0
# Of a file that is sent or taken: so much at once.
FILE_CHUNK = 512 * 1024
# Between two tries while Redis is away, at most.
REDIS_PAUSE_S = 2.0
