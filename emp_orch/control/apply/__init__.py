"""What people do to a fleet from this host: preview, publish, start, stop, roll back, restart, drain, boot unit. No
loop stays behind. Called by the CLI, doctor and `images`.
"""
