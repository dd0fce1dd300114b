"""What the agent sees of its machine: programs, how they ended, GPUs, disk, memory, another agent under its id. Nothing
here acts or reports; called by `agent`.
"""
