-- Lets the snapshot at `snap.next` stand for the log up to a seq.
-- KEYS  1 meta  2 log  3 snap  4 snap.next
-- ARGV  1 epoch  2 holder  3 seq
-- reply {OK, base}  {FENCED, the store's epoch}  {GAP, the store's seq}  {OUTCOME, 0, outcome}  {NOMETA}
local m = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'seq', 'base', 'outcome', 'logBytes')
if not m[1] then return {'NOMETA'} end
if m[5] then return {'OUTCOME', 0, m[5]} end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return {'FENCED', tonumber(m[1])} end
local n, seq, base = tonumber(ARGV[3]), tonumber(m[3]), tonumber(m[4])
-- A cut that comes again, or after a later one, must not bring the older snapshot back.
if n <= base then return {'OK', base} end
if n > seq or redis.call('EXISTS', KEYS[4]) == 0 then return {'GAP', seq} end
local size = redis.call('STRLEN', KEYS[4])
local left = 0
for _, record in ipairs(redis.call('LRANGE', KEYS[2], n - base, -1)) do left = left + #record end
redis.call('RENAME', KEYS[4], KEYS[3])
redis.call('LTRIM', KEYS[2], n - base, -1)
redis.call('HSET', KEYS[1], 'base', n, 'snapshotBytes', size, 'logBytes', left)
return {'OK', n}
