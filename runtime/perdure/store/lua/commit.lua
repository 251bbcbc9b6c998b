-- Appends one record, and what the store is told beside it, whole or not at all.
--
-- KEYS   1 meta   2 log   and for more than that   3 lease   4 inbox   5 events
-- ARGV   1 epoch   2 holder   3 seq   4 digest   5 digest of the record before ('' for not known)
--        6 record   7 '1' if a step got on   8 summary
--        9 number of flight changes   … those, three each: '+', '-' or '='; invocation; step
--        … with all five keys: outcome ('' for none); inbox id to acknowledge up to ('' for none);
--        first half of the event ids; the events
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
  if mine and seq == last and meta[4] == ARGV[4] then
    local again = redis.pcall('HINCRBY', KEYS[1], 'repeats', 1)
    return type(again) == 'table' and again or {'OK', last}
  end
  return {'OUTCOME', 0, meta[5]}
end
if not mine or (meta[6] or '') ~= '' then
  -- A full server may refuse to count; the refusal itself stands.
  redis.pcall('HINCRBY', KEYS[1], 'fenced', 1)
  return {'FENCED', tonumber(meta[1])}
end
if seq < last or (seq == last and meta[4] == ARGV[4]) then
  -- WAIT counts from its connection's last write, which on a new one is this.
  local again = redis.pcall('HINCRBY', KEYS[1], 'repeats', 1)
  return type(again) == 'table' and again or {'OK', last}
end
if seq == last then return {'CONFLICT', last} end
-- The same seq isn't the same record: a store that went back may have taken another's for it.
if seq > last + 1 or (ARGV[5] ~= '' and ARGV[5] ~= meta[4]) then return {'GAP', last, meta[4] or ''} end

local rest = 10 + 3 * tonumber(ARGV[9])
local outcome, acknowledge, part = ARGV[rest] or '', ARGV[rest + 1] or '', ARGV[rest + 2]
-- Reads that fail on a wrong type or a malformed id: here, where nothing is written yet.
if acknowledge ~= '' then redis.call('XRANGE', KEYS[4], '-', acknowledge, 'COUNT', 1) end
local index = 0
if ARGV[rest + 3] then
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
  'seq', ARGV[3], 'digest', ARGV[4], 'summary', ARGV[8],
  'commitTime', string.format('%d.%06d', now, tonumber(time[2])),
  'logBytes', string.format('%.0f', (tonumber(meta[7] or '') or 0) + #ARGV[6])}
local function set(name, value) fields[#fields + 1] = name; fields[#fields + 1] = value end
if ARGV[7] == '1' then set('stepSeq', ARGV[3]) end
-- Here too, for a store that goes back forgets the ids that its stream has given.
if acknowledge ~= '' then set('inboxAck', acknowledge) end
if outcome ~= '' then set('outcome', outcome) end
local notify = outcome ~= '' or math.abs(now - (tonumber(meta[8] or '') or 0)) >= 1
if notify then set('notified', now) end
-- Few calls rather than one for each: what a call costs is the call.
local begun, gone = {}, {}
for i = 10, rest - 1, 3 do
  local sign, invocation = ARGV[i], ARGV[i + 1]
  if sign == '+' then
    begun[invocation] = ARGV[i + 2]
  else
    gone[#gone + 1] = 'cuts:' .. invocation
    if sign == '-' then
      begun[invocation] = nil
      gone[#gone + 1] = 'inv:' .. invocation
    end
  end
end
for invocation, step in pairs(begun) do set('inv:' .. invocation, step) end

redis.call('RPUSH', KEYS[2], ARGV[6])
for i = 1, #gone, 1000 do redis.call('HDEL', KEYS[1], unpack(gone, i, math.min(i + 999, #gone))) end
for i = 1, #fields, 1000 do redis.call('HSET', KEYS[1], unpack(fields, i, math.min(i + 999, #fields))) end
for i = rest + 3, #ARGV do
  local id = part .. '-' .. string.format('%.0f', index + i - rest - 3)
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', 10000, id, 'event', ARGV[i])
end
if acknowledge ~= '' then
  redis.call('XTRIM', KEYS[4], 'MINID', acknowledge)
  redis.call('XDEL', KEYS[4], acknowledge)
end
if outcome ~= '' then redis.call('DEL', KEYS[3]) end
-- A hint: whoever may not publish loses nothing but time.
if notify then
  local namespace, uid = string.match(KEYS[1], '^(.-){(.-)}')
  redis.pcall('PUBLISH', namespace .. 'runs', uid)
end
return {'OK', seq}
