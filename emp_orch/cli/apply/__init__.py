"""The commands that change what the fleet is: init, render, diff, apply, rollback, start, down. What they do is in
`control/apply`. Loaded by name from `main`.
"""
