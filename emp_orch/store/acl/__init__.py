"""Users and rights at Redis: what a machine's login may do, and which scripts it may run. It grants and looks; when
that is done is the control plane's business. Called by `control`, the API's join, and doctor.
"""
