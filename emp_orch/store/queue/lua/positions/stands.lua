-- Whether a job stands at some place.

-- The statuses of jobs that ended.
local ENDED_IN = {'completed', 'failed', 'cancelled', 'timeout'}

-- Whether it stands where its status says: held, ended or, when it is pending, in its lane.
-- key names: JOBS_IN, LEASES, LANE, LANES
-- include base: call
-- include records: member
-- include stands: ENDED_IN
local function stands(id, seq, sig, status)
  if call('ZSCORE', LEASES, id) then return true end
  for i = 1, #ENDED_IN do
    if call('ZSCORE', JOBS_IN .. ENDED_IN[i], id) then return true end
  end
  return status == 'pending' and call('HEXISTS', LANES, sig) == 1 and call('ZSCORE', LANE .. sig, member(seq, id))
end
