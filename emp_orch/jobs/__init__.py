"""Job states, requirements and matching, lanes, who could ever run what, the retry decision.

Pure: no I/O, clock, environment or randomness.
"""

from emp_orch.jobs.submission import BadSubmission, Submission, parse_batch, parse_submission
from emp_orch.jobs.workflows import Services

__all__ = ["BadSubmission", "Services", "Submission", "parse_batch", "parse_submission"]
