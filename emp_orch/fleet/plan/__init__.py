"""Drift → operations that would remove it, and what a change of generation does to each machine. It does not say
whether now is the time. Called by `policy`, `round`, and the preview of an apply.
"""
