"""Boxes as services of a Docker Swarm, one a member, by way of one of its managers. Swarm starts them again elsewhere
when a node goes; what it says of them is passed on, not judged.
"""
