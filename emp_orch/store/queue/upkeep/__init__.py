"""What the leader does to the queue each tick: leases that are over, jobs that are gone, jobs that stand nowhere. Who
submits or works never calls it.
"""
