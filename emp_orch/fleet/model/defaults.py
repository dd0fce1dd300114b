"""Defaults of the schema, for where no file was read: a fleet without a generation, and generations of earlier versions
that do not say. Their home is schema/emp.schema.json; tests/unit/test_numbers_have_one_home.py holds these to it.
"""

from __future__ import annotations

RECONCILE_INTERVAL_S = 2.0
STALE_AFTER_S = 10.0
STUCK_AFTER_S = 30.0
PIDS = 16_384
