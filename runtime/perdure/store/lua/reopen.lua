-- Takes the outcome off a run, so that it can be taken up again where it failed. Fences as advance does.
--
-- KEYS   1 meta   2 lease
-- ARGV   1 epoch   2 which reopening it is, counted from 1   3 uid   4 channel
-- reply  OK epoch        the store's now; unchanged when this reopening was done before
--        FENCED epoch    the store's, as high as the given one: decided on an old observation
--        NOMETA 0        also when the run is being deleted

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'deleted', 'reopened')
if not meta[1] or meta[2] then return {'NOMETA', 0} end
local epoch, wanted = tonumber(meta[1]), tonumber(ARGV[1])
if (tonumber(meta[3] or '') or 0) >= tonumber(ARGV[2]) then return {'OK', epoch} end
if wanted <= epoch then return {'FENCED', epoch} end
local cuts = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 5) == 'cuts:' then cuts[#cuts + 1] = field end
end

redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'reopened', ARGV[2], 'holder', '', 'released', '', 'wakeAt', '',
  'cause', 'Reopened', 'desired', 'Running')
redis.call('HDEL', KEYS[1], 'outcome')
for _, field in ipairs(cuts) do redis.call('HDEL', KEYS[1], field) end
redis.call('DEL', KEYS[2])
redis.pcall('PUBLISH', ARGV[4], ARGV[3])
return {'OK', wanted}
