-- Puts an event from outside into a run's inbox, once per id, only of a run that has not ended.
--
-- KEYS   1 meta   2 inbox   3 sent
-- ARGV   1 the sender's id for the event   2 its type   3 its data   4 most entries   5 most bytes
--        6 uid   7 channel
-- reply  OK waiting      events in the inbox now; 0 when this id was taken before
--        FULL waiting    so many entries or bytes wait already: nothing was taken
--        OUTCOME 0 outcome
--        NOMETA 0        also when the run is being deleted

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'outcome', 'deleted', 'inboxBytes', 'inboxAck')
if not meta[1] or meta[3] then return {'NOMETA', 0} end
-- Before the outcome: a sender whose reply was lost is told that its event had come in.
if redis.call('ZSCORE', KEYS[3], ARGV[1]) then return {'OK', 0} end
if meta[2] then return {'OUTCOME', 0, meta[2]} end
-- Every entry says how many bytes came before it, so that what waits is known from the first one alone
-- and a commit's acknowledgement has nothing to add up.
local sent, size, keep = tonumber(meta[4] or '') or 0, #ARGV[3], tonumber(ARGV[4])
local waiting, before = redis.call('XLEN', KEYS[2]), sent
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if first then
  for i = 1, #first[2], 2 do
    if first[2][i] == 'before' then before = tonumber(first[2][i + 1]) or sent end
  end
end
if waiting >= keep or sent - before + size > tonumber(ARGV[5]) then return {'FULL', waiting} end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
-- Behind all that its holder has seen, or it would be passed over: this server's clock may be behind the
-- one's by which those were numbered.
local id = '*'
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local high, low = 0, 0
for _, seen in ipairs({meta[5] or '', newest and newest[1] or ''}) do
  local ms, index = string.match(seen, '^(%d+)-(%d+)$')
  ms, index = tonumber(ms or '0'), tonumber(index or '0')
  if ms > high or (ms == high and index > low) then high, low = ms, index end
end
if tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) <= high then
  id = string.format('%.0f-%.0f', high, low + 1)
end

redis.call('XADD', KEYS[2], id, 'id', ARGV[1], 'type', ARGV[2], 'data', ARGV[3], 'before', string.format('%.0f', sent))
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -keep - 1)
redis.call('HSET', KEYS[1], 'inboxBytes', string.format('%.0f', sent + size))
-- A hint: whoever may not publish loses nothing but time.
redis.pcall('PUBLISH', ARGV[7], ARGV[6])
return {'OK', waiting + 1}
