"""Doctor's checks: facts → problems, each with its fix. A check gathers nothing and imports only facts and the model.
Called by `examine`.
"""
