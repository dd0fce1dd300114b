"""A pool's boxes as jobs of a Slurm, one a member, by its command line tools. It believes nothing that they print
before it was checked; it decides nothing.
"""
