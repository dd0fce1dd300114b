"""What a machine is given to prove itself: signing keys, logins, join tokens, the scripts of its package. Files below
`.emp`, 0600. No Redis is changed here. Called by runtimes, `control` and the API.
"""
