"""One request, one answer: each file the routes of one subject. No handler keeps state between requests. Called by
`routes`; two by the streams.
"""
