"""How commands print and ask: text, progress, names that people type, common options. No command, and nothing of Redis
at import. Called by all of `cli`.
"""
