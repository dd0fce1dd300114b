"""Redis: key names, Lua, reports, events, commands, generations, leader lease, journal, queue.

The only room that names a key or sends a Redis command.
"""
