"""What is told of rounds: entries of the journal, the story of one drift, and what a person can do about it. Words and
their data; no decision. Called by `round`, the control plane, the store, the API and the CLI.
"""
