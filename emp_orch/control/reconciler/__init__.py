"""The daemon that keeps the fleet as it is desired: observe, decide by `fleet/round`, act by `control/leader`. It holds
no decision of its own. Called by the CLI's daemon; its look is shared with `status` and `apply`.
"""
