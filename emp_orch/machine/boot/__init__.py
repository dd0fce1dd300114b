"""From nothing to a supervisord that runs: join, fetch the configuration, prepare the folder, the order of the
start-up. Over once the agent is up, but for the foreground. Called by the CLI's `emp machine` and the agent.
"""
