"""The control plane itself: its supervisord or its containers, the embedded Redis, its parts. It knows no machine of
the fleet. Called by `apply`, `status`, the reconciler and doctor.
"""
