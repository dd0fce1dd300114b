"""The worker package on a machine: fetched, checked, unpacked, switched to, old ones deleted. It starts no worker.
Called by the agent.
"""
