-- Ends a run from outside: fences, and sets the outcome if there is none. It is set once.
--
-- KEYS   1 meta   2 lease
-- ARGV   1 epoch   2 outcome   3 uid   4 channel
-- reply  OUTCOME 0 outcome   what stands, this one or another
--        FENCED epoch    the store's, as high as the given one: decided on an old observation
--        NOMETA 0

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'outcome')
if not meta[1] then return {'NOMETA', 0} end
if meta[2] then return {'OUTCOME', 0, meta[2]} end
if tonumber(ARGV[1]) <= tonumber(meta[1]) then return {'FENCED', tonumber(meta[1])} end

redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'holder', '', 'released', '', 'wakeAt', '', 'outcome', ARGV[2])
redis.call('DEL', KEYS[2])
redis.pcall('PUBLISH', ARGV[4], ARGV[3])
return {'OUTCOME', 0, ARGV[2]}
