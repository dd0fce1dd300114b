"""How emp talks to any Redis: connections, key names, scripts, what refusals and damage mean. It knows no document.
Called by all of `store`; others take a client and keys from here.
"""
