-- The takeover's fence: raises the epoch, never lowers it; who held the run can't write any more.
-- KEYS  1 meta  2 lease
-- ARGV  1 epoch  2 cause  3 deleted 0/1
-- reply {OK, epoch now}  {OUTCOME, 0, outcome}  {NOMETA}
local m = redis.call('HMGET', KEYS[1], 'epoch', 'outcome')
if not m[1] then return {'NOMETA'} end
if m[2] and ARGV[3] ~= '1' then return {'OUTCOME', 0, m[2]} end
local epoch = tonumber(m[1])
if tonumber(ARGV[1]) > epoch then
  epoch = tonumber(ARGV[1])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'holder', '', 'released', '', 'cause', ARGV[2])
  redis.call('HDEL', KEYS[1], 'wakeAt')
  redis.call('DEL', KEYS[2])
end
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'deleted', 1) end
return {'OK', epoch}
