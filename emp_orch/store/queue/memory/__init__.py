"""The queue's twin in memory, for tests and benches: it promises what the contract suite holds both to. No Redis, and
nothing that a real fleet uses.
"""
