"""Start, stop and list machines: one file per runtime behind one Protocol.

Holds no fleet decisions; stops only what it started, by pid and start time.
"""
