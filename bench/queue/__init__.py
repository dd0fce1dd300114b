"""emp's job queue beside other queues, on one Redis, in one run: `python -m bench.queue`."""
