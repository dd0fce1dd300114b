"""A pool under load: members that join, leave and fall silent while jobs run, and what that costs the control plane."""
