"""Machines that nobody here starts: they join by themselves. All that can be done is to say so. Called through the
`Runtime` protocol.
"""
