"""How many members a pool should have, why, and who of them comes or goes. It asks nobody and starts nothing. Called by
`round`; what is remembered from look to look travels in `policy/memory`.
"""
