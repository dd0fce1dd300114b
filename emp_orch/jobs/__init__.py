"""Job states, requirements and matching, lanes, who could ever run what, the retry decision.

Pure: no I/O, clock, environment or randomness.
"""
