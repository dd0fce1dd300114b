"""Claim → connector → report, for one GPU slot."""
