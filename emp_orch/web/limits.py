"""Times that servers and those who ask them share."""

from __future__ import annotations

# Of a body that is sent or taken: for so long nothing may come.
STALL_S = 60.0
# A stream that broke is taken up again after the first pause, then after twice as long each time, up to the last.
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
# Who waits for a message wakes as often as this, to see whether its connection lives.
MESSAGE_POLL_S = 10.0
