"""A job as it is written down: submission, states, inputs, outputs, secrets. No decision about a run that ended: that
is `outcome`. Called by whoever reads or writes a job.
"""
