"""The members of a fleet's pools in Redis, and a generation with them among its machines. Called by whoever acts by a
generation: the reconciler, the API, orders.
"""
