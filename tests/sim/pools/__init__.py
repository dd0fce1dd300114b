"""The simulation of pools: engines that lie, boxes that come and go, a queue; the reconcilers, their hands, the look at
engines and the join are the real ones, on a loop of virtual time.
"""
