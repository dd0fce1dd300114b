"""How boxes are let in: at which rate, as which member of a pool, and what they are told. No route is here: called by
`handlers/join`, and by whoever lets in a member's token.
"""
