"""What the leader keeps so at each tick, beside the rounds: keys, logins, scripts, a look at Redis. No drift is
repaired here. Called by the reconciler; some of it by `apply`, `checks`, doctor and the CLI too.
"""
