"""The documents of a fleet, one writer each: generations, configurations, commands, requests, overrides, leader,
events, journal, status. No job and no report. Called by the control plane, machines, the API and the CLI.
"""
