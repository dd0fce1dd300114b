"""The simulation of emp under fault: world.py's machines, a Redis, reconcilers that are the real ones, and people.

Nothing here reads a clock or draws by chance: a history is what a test asks for, and the same asked again is the same.
"""
