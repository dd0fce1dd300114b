"""emp.yaml text → a typed, frozen Fleet.

Parses with positions, interpolates, validates; reports every error at once. Never decides what to do about a fleet.
"""
