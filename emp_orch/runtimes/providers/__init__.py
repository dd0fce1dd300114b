"""The engines that start the boxes of a pool: one module or folder a provider behind one Protocol (base.py). They
decide nothing: which member is to come or to go is said by fleet/pools. Called by `control/pools`.
"""
