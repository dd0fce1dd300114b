"""Answers that go on: server-sent events and WebSockets, for the monitor and for clients. What they send comes from
`feed`. Called by `routes`.
"""
