"""How long a machine's stop may take, whatever it runs as."""

from __future__ import annotations

# For its workers, where nobody knows what its drain_timeout is.
UNKNOWN_DRAIN_S = 60.0
# Beyond its drain: the time for its services and its supervisord to stop.
STOP_MARGIN_S = 30.0
