"""The provider `command`: the user's own program starts the boxes. One process a request, JSON in, JSON out:
documents.py says what, run.py how. No service's API is known here: that is the program's to know.
"""
