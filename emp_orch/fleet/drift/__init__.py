"""Desired and observed → the differences between them, each with its kind and cause. It says what is wrong, never what
to do. Called by `plan`, `policy`, `round`, and whoever shows differences.
"""
