"""The other commands, a file each: status, logs, events, restart, doctor and so on. They parse, call and print. Loaded
by name from `main`.
"""
