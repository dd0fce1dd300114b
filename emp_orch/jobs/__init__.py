"""Job states, requirements and matching, lanes, the retry decision.

Pure: no I/O, clock, environment or randomness.
"""
