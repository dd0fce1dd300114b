"""What the API shows: documents made from values, the table of routes' words, OpenAPI. No Redis, no request is answered
here. Called by all of `api`.
"""
