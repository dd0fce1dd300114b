"""Desired machine → supervisord text.

Pure: templates come in as text. Decides nothing; only quotes.
"""
