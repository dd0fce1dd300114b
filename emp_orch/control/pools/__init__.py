"""What a leader sees of the engines that start a fleet's boxes, and what it asks of them; the jobs that wait for pools.
It decides nothing: sizes come from `fleet/pools`. Called by the reconciler.
"""
