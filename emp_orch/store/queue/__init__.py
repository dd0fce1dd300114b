"""The job queue: submit, claim, renew, end, read, and who could take what. Every change is one Lua script. Nothing of
artifacts. Called by workers, the API, the CLI and the leader's upkeep.
"""
