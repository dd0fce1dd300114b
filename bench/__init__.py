"""Measured comparisons with peers: run by hand (`make bench`), never part of what is installed."""
