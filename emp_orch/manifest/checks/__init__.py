"""What no schema can say of an emp.yaml: keys that contradict each other, ports that meet, what this host lacks. A
check reports problems or notes and changes nothing. Called by `load` and `validate`; notes about this host also by the
CLI, an apply and doctor.
"""
