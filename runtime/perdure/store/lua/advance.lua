-- The takeover's fence: upwards only. Whoever held the run before can't write any more.
--
-- KEYS   1 meta   2 lease
-- ARGV   1 epoch   2 cause   3 '1' when the run is being deleted
-- reply  OK epoch        the store's now; unchanged when it was as high before
--        OUTCOME 0 outcome   unless it is being deleted
--        NOMETA 0

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'outcome', 'deleted')
if not meta[1] then return {'NOMETA', 0} end
local deleted = ARGV[3] == '1'
if meta[2] and not deleted then return {'OUTCOME', 0, meta[2]} end
local epoch, wanted = tonumber(meta[1]), tonumber(ARGV[1])
if wanted <= epoch then
  if not deleted or meta[3] then return {'OK', epoch} end
  -- Decided on an old observation; the run goes all the same, and its holder must be fenced.
  wanted = epoch + 1
end

redis.call('HSET', KEYS[1], 'epoch', wanted, 'holder', '', 'released', '', 'wakeAt', '', 'cause', ARGV[2])
if deleted then redis.call('HSET', KEYS[1], 'deleted', 1) end
redis.call('DEL', KEYS[2])
return {'OK', wanted}
