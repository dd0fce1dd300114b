"""What runs inside a machine: agent, start-up sequence, launcher, health server.

It decides nothing about the fleet.
"""
