"""Servers that are not emp's: an S3 store, a proxy."""
