"""What the reconciler and the agent cost and how soon they act: `python -m bench.reconcile`."""
