"""Looks at a fleet for people: overview, differences, use, where a machine runs. It only reads, and works with parts of
the fleet down. Called by `apply`, doctor and the CLI.
"""
