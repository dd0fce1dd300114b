"""The nouns and decisions of a fleet: desired, observed, drift, plan, restart policy.

Pure: no I/O, clock, environment or randomness; time, ids and jitter come in as arguments.
"""
