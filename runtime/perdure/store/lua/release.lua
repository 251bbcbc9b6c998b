-- Gives the run back. The epoch stays used: nobody takes it up again but by a higher one.
--
-- KEYS   1 meta   2 lease   3 inbox
-- ARGV   1 epoch   2 holder   3 kind: yield, idle or suspended   4 wakeAt in store time ('' for none)
--        5 the last inbox id that was seen ('' for none)   6 uid   7 channel
-- reply  OK epoch        also when it was given back before
--        INBOX 0         idle, and an event came in that was not seen
--        FENCED epoch    the store's
--        OUTCOME 0 outcome
--        NOMETA 0

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'outcome', 'released')
if not meta[1] then return {'NOMETA', 0} end
if meta[3] then return {'OUTCOME', 0, meta[3]} end
local epoch = tonumber(meta[1])
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return {'FENCED', epoch} end
if (meta[4] or '') ~= '' then return {'OK', epoch} end
-- Only who would sleep must look: a drained run goes on at once elsewhere and finds the event there.
if ARGV[3] == 'idle' then
  local after = ARGV[5] == '' and '-' or ('(' .. ARGV[5])
  if #redis.call('XRANGE', KEYS[3], after, '+', 'COUNT', 1) > 0 then return {'INBOX', 0} end
end

redis.call('HSET', KEYS[1], 'released', ARGV[3], 'wakeAt', ARGV[4])
redis.call('DEL', KEYS[2])
redis.pcall('PUBLISH', ARGV[7], ARGV[6])
return {'OK', epoch}
