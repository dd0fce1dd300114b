"""One claimed job on its connector: run under its lease, watched, its outcome named. It claims nothing and starts no
service. Called by the daemon.
"""
