"""The peers, one module each, and what puts jobs into them.

A peer's module runs in that peer's own virtual environment, so this package imports the standard library and
the one peer, and nothing of emp.
"""
