-- What the job gave as secrets.
-- ARGV: id, token.
-- Answer: JSON, '' when there is nothing, or 'lost'.
-- key names: SECRETS
-- include base: call

-- include held

return call('GET', SECRETS .. id) or ''
