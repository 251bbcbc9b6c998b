-- Prolongs the lease. Works on a full Redis: PEXPIRE is always allowed, SET only where the lease is gone.
-- KEYS  1 meta  2 lease  3 inbox
-- ARGV  1 epoch  2 holder  3 ttl ms
-- reply {OK, 0, desired, last inbox id, seconds, microseconds}
--       {FENCED, the store's epoch}  {OUTCOME, 0, outcome}  {NOMETA}
local m = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'desired', 'outcome')
if not m[1] then return {'NOMETA'} end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return {'FENCED', tonumber(m[1])} end
if m[4] then return {'OUTCOME', 0, m[4]} end
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
local now = redis.call('TIME')
if redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 0 then
  redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
end
return {'OK', 0, m[3], last[1] and last[1][1] or '', now[1], now[2]}
