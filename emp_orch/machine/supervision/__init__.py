"""What emp adds to supervisord from within its process, loaded by `[rpcinterface:emp]`. docs/adr/0022.

It starts programs without a step in between, hears of their ends at once, and ends all that a program began. Here
belongs what needs the daemon's own loop; nothing that waits, and no knowledge of the fleet.
"""
