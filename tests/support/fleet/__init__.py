"""Fleets and observations for the pure rooms, and the simulated world."""
