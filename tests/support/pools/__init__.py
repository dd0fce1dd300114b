"""Pools with a real engine, and a leader of theirs."""
