"""What follows from the end of a run: retry, poison, full disk, losses that are told. No I/O. Called by the worker, the
store and the control plane.
"""
