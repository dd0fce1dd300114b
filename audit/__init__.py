"""What emp brings along that others wrote: known faults, licences, digests, and the list of it all (`make audit`).

Developers' tools; nothing in emp_orch imports them.
"""
