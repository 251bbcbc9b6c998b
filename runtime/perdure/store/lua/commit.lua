-- Appends one record, and writes what goes with it.
-- KEYS  1 meta  2 log  3 lease  4 inbox  5 events
-- ARGV  1 epoch  2 holder  3 seq  4 digest  5 record  6 progress 0/1  7 summary  8 has outcome 0/1  9 outcome
--       10 inbox id to acknowledge up to, or ''  11 channel  12 uid  13 the events' id without its index
--       14 number of flight changes, then sign, invocation, step for each; then the events
-- reply {OK, seq}  {FENCED, the store's epoch}  {GAP, the store's seq}  {CONFLICT, the store's seq}
--       {OUTCOME, 0, outcome}  {NOMETA}
local m = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'seq', 'digest', 'outcome', 'notified')
if not m[1] then return {'NOMETA'} end
local seq, last = tonumber(ARGV[3]), tonumber(m[3])
local mine = m[1] == ARGV[1] and m[2] == ARGV[2]
if mine and seq <= last then
  -- The reply was lost: the same bytes are there already.
  if seq < last or m[4] == ARGV[4] then return {'OK', last} end
  return {'CONFLICT', last}
end
if m[5] then return {'OUTCOME', 0, m[5]} end
if not mine then
  redis.pcall('HINCRBY', KEYS[1], 'fenced', 1)
  return {'FENCED', tonumber(m[1])}
end
if seq > last + 1 then return {'GAP', last} end
local changes = tonumber(ARGV[14])
local set, gone = {}, {}
for i = 15, 14 + 3 * changes, 3 do
  local field = 'inv:' .. ARGV[i + 1]
  if ARGV[i] == '-' then
    gone[#gone + 1] = field
  else
    local known = redis.call('HGET', KEYS[1], field)
    if ARGV[i] == '+' then
      if not known then set[field] = '0 ' .. ARGV[i + 2] end
    elseif set[field] then
      set[field] = '0 ' .. string.match(set[field], '^%d+ (.*)$')
    elseif known then
      set[field] = '0 ' .. (string.match(known, '^%d+ (.*)$') or '')
    end
  end
end
local acknowledged = {}
if ARGV[10] ~= '' then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[4], '-', ARGV[10])) do
    acknowledged[#acknowledged + 1] = entry[1]
  end
end
local now = redis.call('TIME')
local fields = {'seq', ARGV[3], 'digest', ARGV[4], 'summary', ARGV[7], 'commitTime', now[1] .. '.' .. string.format('%06d', now[2])}
if ARGV[6] == '1' then fields[#fields + 1] = 'stepSeq'; fields[#fields + 1] = ARGV[3] end
if ARGV[8] == '1' then fields[#fields + 1] = 'outcome'; fields[#fields + 1] = ARGV[9] end
local notify = ARGV[8] == '1' or m[6] ~= now[1]
if notify then fields[#fields + 1] = 'notified'; fields[#fields + 1] = now[1] end
for _, field in ipairs(gone) do set[field] = nil end
for field, value in pairs(set) do fields[#fields + 1] = field; fields[#fields + 1] = value end

redis.call('RPUSH', KEYS[2], ARGV[5])
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('HINCRBY', KEYS[1], 'logBytes', #ARGV[5])
for i = 1, #gone, 1000 do redis.call('HDEL', KEYS[1], unpack(gone, i, math.min(i + 999, #gone))) end
for i = 1, #acknowledged, 1000 do
  redis.call('XDEL', KEYS[4], unpack(acknowledged, i, math.min(i + 999, #acknowledged)))
end
-- pcall: a stream that went ahead of this run's seq (after the store lost its tail) takes no older id.
for i = 15 + 3 * changes, #ARGV do
  redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', 10000, ARGV[13] .. '-' .. (i - 14 - 3 * changes), 'e', ARGV[i])
end
if ARGV[8] == '1' then redis.call('DEL', KEYS[3]) end
if notify then redis.call('PUBLISH', ARGV[11], ARGV[12]) end
return {'OK', seq}
