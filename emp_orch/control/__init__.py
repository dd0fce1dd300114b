"""The reconciler daemon (observe → drift → plan → execute) and `apply`."""
