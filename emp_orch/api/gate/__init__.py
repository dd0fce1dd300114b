"""`GET /api/gate`: the way to Redis of boxes that have no login there. Each command that comes is judged by
`store/acl/strangers`, and goes on over a connection of the API's own. What may be asked is never decided here.
"""
