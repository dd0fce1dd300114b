"""The simulation's HTTP routes by subject, each a class of handlers with its table."""
