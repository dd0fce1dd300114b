"""Log files of a fleet: which there are, their lines in order of time, following them. No text of a log is judged.
Called by the CLI.
"""
