"""Whether an operation may run now: pauses, backoff, budgets, breaker, rollout, and the memory that they need. It finds
no drift and invents no operation. Called by `round` and `journal`; holds are shown by the API and the CLI.
"""
