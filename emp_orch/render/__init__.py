"""Desired machines → supervisord and compose text.

Pure: templates come in as text. Decides nothing; only quotes.
"""
