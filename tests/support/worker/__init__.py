"""Real workers and services as processes; runs to give to a connector."""
