"""Commands that look and change nothing: status, top, logs, events, journal, explain, history. What acts is in
`commands` and `apply`. Called by `main` alone.
"""
