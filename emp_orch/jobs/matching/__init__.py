"""Which worker may run which job: requirements, capabilities, what a service offers, and why nobody can. No queue, no
Redis. Called by `jobs/document`, the store, the worker and the API.
"""
