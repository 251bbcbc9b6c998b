-- Lets the snapshot that was uploaded to snap.next stand for the log up to its seq.
--
-- KEYS   1 meta   2 log   3 snap   4 snap.next
-- ARGV   1 epoch   2 holder   3 seq   4 the snapshot's header   5 its bytes, header included
-- reply  OK base         also when this or a later one does already
--        FENCED epoch    the store's
--        GAP seq         the store's last: that seq isn't committed
--        CONFLICT seq    snap.next isn't what this holder sent
--        OUTCOME 0 outcome
--        NOMETA 0

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'outcome', 'released', 'seq', 'base')
if not meta[1] then return {'NOMETA', 0} end
if meta[3] then return {'OUTCOME', 0, meta[3]} end
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or (meta[4] or '') ~= '' then
  return {'FENCED', tonumber(meta[1])}
end
local seq, last, base = tonumber(ARGV[3]), tonumber(meta[5]), tonumber(meta[6])
if seq <= base then return {'OK', base} end
if seq > last then return {'GAP', last} end
-- The upload is a plain SET, which no fence holds off: a zombie's may have come between.
if redis.call('STRLEN', KEYS[4]) ~= tonumber(ARGV[5])
  or redis.call('GETRANGE', KEYS[4], 0, #ARGV[4] - 1) ~= ARGV[4] then
  return {'CONFLICT', last}
end
local bytes = 0
if seq < last then
  for _, record in ipairs(redis.call('LRANGE', KEYS[2], seq - base, -1)) do bytes = bytes + #record end
end

-- The upload is given a time to live, lest a dead runner's stay for ever; what it becomes has none.
redis.call('PERSIST', KEYS[4])
redis.call('RENAME', KEYS[4], KEYS[3])
redis.call('LTRIM', KEYS[2], seq - base, -1)
redis.call('HSET', KEYS[1], 'base', ARGV[3], 'logBytes', string.format('%.0f', bytes), 'snapBytes', ARGV[5])
return {'OK', seq}
