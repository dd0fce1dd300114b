"""Acting as the leader: the lease, one operation carried out under it, and what a failing part does to a round. It
decides nothing about the fleet. Called by the reconciler and by what the leader keeps up.
"""
