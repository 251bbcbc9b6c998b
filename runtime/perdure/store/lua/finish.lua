-- Ends a run from outside: fences its holder, and sets the outcome if there is none.
-- KEYS  1 meta  2 lease
-- ARGV  1 epoch  2 outcome
-- reply {OUTCOME, epoch now, the outcome that stands}  {NOMETA}
local m = redis.call('HMGET', KEYS[1], 'epoch', 'outcome')
if not m[1] then return {'NOMETA'} end
local epoch = tonumber(m[1])
if m[2] then return {'OUTCOME', epoch, m[2]} end
if tonumber(ARGV[1]) > epoch then
  epoch = tonumber(ARGV[1])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'holder', '', 'released', '', 'outcome', ARGV[2])
else
  redis.call('HSET', KEYS[1], 'holder', '', 'released', '', 'outcome', ARGV[2])
end
redis.call('DEL', KEYS[2])
return {'OUTCOME', epoch, ARGV[2]}
