"""The nouns: the fleet as emp.yaml says it, and what machines and workers report. Values and their names; no decision,
nothing derived from two of them. Every room may use it.
"""
