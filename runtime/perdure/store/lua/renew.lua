-- Prolongs the lease. Must work when the server is at maxmemory, where PEXPIRE is let through and SET isn't.
--
-- KEYS   1 meta   2 lease   3 inbox
-- ARGV   1 epoch   2 holder   3 ttl in ms
-- reply  OK 0 desired inboxLastId seconds microseconds
--        FENCED epoch    the store's; also when this holder gave the run back
--        OUTCOME 0 outcome
--        NOMETA 0

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'outcome', 'released', 'desired')
if not meta[1] then return {'NOMETA', 0} end
if meta[3] then return {'OUTCOME', 0, meta[3]} end
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or (meta[4] or '') ~= '' then
  return {'FENCED', tonumber(meta[1])}
end
local ttl = tonumber(ARGV[3])
local value = ARGV[1] .. ' ' .. ARGV[2]
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
local time = redis.call('TIME')

if redis.call('GET', KEYS[2]) == value then
  redis.call('PEXPIRE', KEYS[2], ttl)
else
  redis.call('SET', KEYS[2], value, 'PX', ttl)
end
-- For people's eyes alone, so a full server may refuse it.
redis.pcall('HSET', KEYS[1], 'leaseUntil', string.format('%.3f', time[1] + time[2] / 1000000 + ttl / 1000))
return {'OK', 0, meta[5] or '', last[1] and last[1][1] or '', time[1], time[2]}
