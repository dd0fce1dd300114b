"""What the API knows now and what changed: read once, encoded once, given to all who listen. No client's connection.
Called by `context`, `handlers` and `stream`.
"""
