"""Machines as process groups on this host: start, stop, list, logs, how a program ended. No Docker, no policy. Called
through the `Runtime` protocol; its files of exits are read by agents and workers too.
"""
