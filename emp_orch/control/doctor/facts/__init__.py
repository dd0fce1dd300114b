"""Everything that doctor looks at, gathered side by side; what cannot be had is `Unknown`, with the reason. A fact
judges nothing and imports no check. Called by doctor only.
"""
