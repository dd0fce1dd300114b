"""What the leader does for the queue at each tick: lost jobs, stray jobs, verdicts on lanes, retention. No machine is
touched. Called by the reconciler only.
"""
