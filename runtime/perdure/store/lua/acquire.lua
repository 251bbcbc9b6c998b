-- Takes a run for one holder: an epoch is used once.
--
-- KEYS   1 meta   2 lease
-- ARGV   1 epoch   2 holder   3 ttl in ms   4 the server's run_id   5 '1' if it syncs every write to disk
-- reply  OK seq digest desired cause seconds microseconds restarted
--        FENCED epoch    the store's; another holder has it, or had it and gave it back
--        OUTCOME 0 outcome
--        NOMETA 0        also when the run is being deleted

local meta = redis.call('HMGET', KEYS[1],
  'epoch', 'holder', 'outcome', 'deleted', 'seq', 'digest', 'desired', 'cause', 'storeRunId', 'released', 'restarts')
if not meta[1] or meta[4] then return {'NOMETA', 0} end
if meta[3] then return {'OUTCOME', 0, meta[3]} end
local epoch, mine = tonumber(meta[1]), tonumber(ARGV[1])
local holder = meta[2] or ''
if mine < epoch then return {'FENCED', epoch} end
if mine == epoch and holder ~= '' and (holder ~= ARGV[2] or (meta[10] or '') ~= '') then
  return {'FENCED', epoch}
end
local ttl = tonumber(ARGV[3])

-- Whom a crash cut off is counted once per epoch, by the first to take it. Not when the epoch is raised
-- here: then the store went back behind a run that goes on.
local cut = {}
local counts = {Crashed = true, OOMKilled = true, LeaseExpired = true, Fenced = true, StartTimeout = true}
if mine == epoch and holder == '' and counts[meta[8] or ''] then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 4) == 'inv:' then
      local name = 'cuts:' .. string.sub(field, 5)
      cut[#cut + 1] = {name, (tonumber(redis.call('HGET', KEYS[1], name) or '') or 0) + 1}
    end
  end
end
local restarted = 0
if meta[9] and meta[9] ~= '' and meta[9] ~= ARGV[4] and ARGV[5] ~= '1' then restarted = 1 end
local restarts = (tonumber(meta[11] or '') or 0) + restarted
local seq = tonumber(meta[5])
local time = redis.call('TIME')

redis.call('HSET', KEYS[1],
  'epoch', ARGV[1], 'holder', ARGV[2], 'released', '', 'wakeAt', '', 'storeRunId', ARGV[4],
  'restarts', restarts,
  'leaseUntil', string.format('%.3f', time[1] + time[2] / 1000000 + ttl / 1000))
for _, pair in ipairs(cut) do redis.call('HSET', KEYS[1], pair[1], pair[2]) end
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', ttl)
return {'OK', seq, meta[6] or '', meta[7] or '', meta[8] or '', time[1], time[2], restarted}
