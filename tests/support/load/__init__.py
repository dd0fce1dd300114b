"""Many jobs, workers and services under fault, and what must come of each job."""
