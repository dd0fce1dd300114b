"""A worker's services: hardware, whether they are ready, warmed up, or occupied by somebody else. No job of the queue
is known here. Called by the worker's state and daemon.
"""
