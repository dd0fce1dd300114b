"""Whether programs work: probes and what they ask, who has their port, the machine's health server. It restarts
nothing. Called by the agent.
"""
