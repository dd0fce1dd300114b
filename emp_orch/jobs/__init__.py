"""Job states, requirements and matching, lanes, who could ever run what, the retry decision.

Pure: no I/O, clock, environment or randomness.
"""

from emp_orch.jobs.submission import BadSubmission, Submission, parse_batch, parse_submission

__all__ = ["BadSubmission", "Submission", "parse_batch", "parse_submission"]
