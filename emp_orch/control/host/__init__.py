"""What this host holds of a fleet: the generation on disk, files that are watched, processes and marks, who acts.
Nothing is started, and ended only what carries the fleet's marks. Called by all of `control`, and by the CLI.
"""
