-- Gives the run back, unless an event came in that its runner did not see.
-- KEYS  1 meta  2 lease  3 inbox
-- ARGV  1 epoch  2 holder  3 kind: yield, idle or suspended  4 wake at, or ''  5 the last inbox id seen, or ''
--       6 channel  7 uid
-- reply {OK, 0}  {INBOX}  {FENCED, the store's epoch}  {OUTCOME, 0, outcome}  {NOMETA}
local m = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'outcome')
if not m[1] then return {'NOMETA'} end
if m[3] then return {'OUTCOME', 0, m[3]} end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return {'FENCED', tonumber(m[1])} end
if ARGV[3] == 'idle' then
  local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
  if last[1] and last[1][1] ~= ARGV[5] then return {'INBOX'} end
end
redis.call('HSET', KEYS[1], 'released', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'wakeAt', ARGV[4]) end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return {'OK', 0}
