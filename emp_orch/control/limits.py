"""Times and counts that the control plane's modules share."""

from __future__ import annotations

# How long a look of a person waits for Redis.
REDIS_DEADLINE_S = 4.0
# supervisords asked at the same time when Redis is away.
ASK_AT_ONCE = 16
# How long a wait for an event looks away at most when none comes.
LOOK_AGAIN_MS = 1_000
# How long the control plane's own daemons may take to end.
PLANE_STOP_S = 90.0
# One of them that is stopped by name.
PLANE_SILENCE_S = 40.0
# Of what went wrong so much is kept, in characters.
MAX_ERROR = 500
