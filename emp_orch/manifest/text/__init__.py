"""The text of an emp.yaml: YAML with positions, variables, secrets by reference, and problems with line and column. It
does not know what a key means. Called by the rest of `manifest`, and by whoever reports a problem of that file.
"""
