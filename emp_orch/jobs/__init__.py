"""Job states, requirements and matching, lanes, the retry decision.

Pure: no I/O, clock, environment or randomness.
"""

from emp_orch.jobs.submission import BadSubmission, Submission, parse_submission

__all__ = ["BadSubmission", "Submission", "parse_submission"]
