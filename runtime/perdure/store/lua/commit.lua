-- Appends one record, and what the store is told beside it, whole or not at all.
--
-- KEYS   1 meta   2 log   3 lease   4 inbox   5 events
-- ARGV   1 epoch   2 holder   3 seq   4 digest   5 record   6 '1' if a step got on   7 summary
--        8 outcome ('' for none)   9 inbox id to acknowledge up to ('' for none)   10 uid   11 channel
--        12 first half of the event ids   13 digest of the record before ('' for not known)
--        14 number of events   15 … the events
--        … flight changes, three each: '+', '-' or '='; invocation; step
-- reply  OK seq          also for the same bytes again
--        FENCED epoch    the store's
--        GAP seq digest  the store's last: not the record that this one follows
--        CONFLICT seq    the same seq with other bytes
--        OUTCOME 0 outcome
--        NOMETA 0

local meta = redis.call('HMGET', KEYS[1],
  'epoch', 'holder', 'seq', 'digest', 'outcome', 'released', 'logBytes', 'notified')
if not meta[1] then return {'NOMETA', 0} end
local last, seq = tonumber(meta[3]), tonumber(ARGV[3])
local mine = meta[1] == ARGV[1] and meta[2] == ARGV[2]
if meta[5] then
  -- The batch that ended the run, sent again after its reply was lost.
  if mine and seq == last and meta[4] == ARGV[4] then return {'OK', last} end
  return {'OUTCOME', 0, meta[5]}
end
if not mine or (meta[6] or '') ~= '' then
  -- A full server may refuse to count; the refusal itself stands.
  redis.pcall('HINCRBY', KEYS[1], 'fenced', 1)
  return {'FENCED', tonumber(meta[1])}
end
if seq < last or (seq == last and meta[4] == ARGV[4]) then return {'OK', last} end
if seq == last then return {'CONFLICT', last} end
-- The same seq isn't the same record: a store that went back may have taken another's for it.
if seq > last + 1 or (ARGV[13] ~= '' and ARGV[13] ~= meta[4]) then return {'GAP', last, meta[4] or ''} end

-- Reads that fail on a wrong type or a malformed id: here, where nothing is written yet.
local acknowledge = ARGV[9] ~= ''
if acknowledge then redis.call('XRANGE', KEYS[4], '-', ARGV[9], 'COUNT', 1) end
local events = tonumber(ARGV[14])
local part, index = ARGV[12], 0
if events > 0 then
  local newest = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
  if newest then
    -- An id must be above the stream's last, or XADD fails after the record is in. Compared as text,
    -- since such numbers are beyond what Lua counts exactly.
    local high, low = string.match(newest[1], '^(%d+)-(%d+)$')
    if #high > #part or (#high == #part and high >= part) then part, index = high, tonumber(low) + 1 end
  end
end
local time = redis.call('TIME')
local now = tonumber(time[1])
local fields = {
  'seq', ARGV[3], 'digest', ARGV[4], 'summary', ARGV[7],
  'commitTime', string.format('%d.%06d', now, tonumber(time[2])),
  'logBytes', string.format('%.0f', (tonumber(meta[7] or '') or 0) + #ARGV[5])}
local ends = ARGV[8] ~= ''
local function set(name, value) fields[#fields + 1] = name; fields[#fields + 1] = value end
if ARGV[6] == '1' then set('stepSeq', ARGV[3]) end
if ends then set('outcome', ARGV[8]) end
local notify = ends or math.abs(now - (tonumber(meta[8] or '') or 0)) >= 1
if notify then set('notified', now) end

redis.call('RPUSH', KEYS[2], ARGV[5])
redis.call('HSET', KEYS[1], unpack(fields))
for i = 1, events do
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', 10000, part .. '-' .. string.format('%.0f', index + i - 1), 'event', ARGV[14 + i])
end
for i = 15 + events, #ARGV, 3 do
  local sign, invocation = ARGV[i], ARGV[i + 1]
  if sign == '+' then
    redis.call('HSETNX', KEYS[1], 'inv:' .. invocation, ARGV[i + 2])
  elseif sign == '-' then
    redis.call('HDEL', KEYS[1], 'inv:' .. invocation, 'cuts:' .. invocation)
  else
    redis.call('HDEL', KEYS[1], 'cuts:' .. invocation)
  end
end
if acknowledge then
  redis.call('XTRIM', KEYS[4], 'MINID', ARGV[9])
  redis.call('XDEL', KEYS[4], ARGV[9])
end
if ends then redis.call('DEL', KEYS[3]) end
-- A hint: whoever may not publish loses nothing but time.
if notify then redis.pcall('PUBLISH', ARGV[11], ARGV[10]) end
return {'OK', seq}
