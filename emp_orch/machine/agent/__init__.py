"""The machine's agent: reports, the start-up sequence, commands that were sealed for this machine. It decides nothing
about the fleet. Started by supervisord; nobody else calls it.
"""
