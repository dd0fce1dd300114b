-- Finish completed jobs and claim the next, in one trip.
-- ARGV: worker, its class, token, lease ms, longest wait ms, how many it wants, number of finished jobs; for each: id,
-- token, result (JSON).
-- Answer: {statuses of the finished, 'stale'} when the class does not know all lanes; {statuses, 'wait', ms}; or
-- {statuses, 'jobs', {id, document, earlier runs, assigned ms, error, payload, needs, crashes}, …}.
-- Invariant: a job is taken out of its lane and leased in one script, to one worker.

-- include finish_completed
-- include take_jobs
-- include wait
