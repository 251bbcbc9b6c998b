-- A run's durable state in one consistent read.
-- KEYS  1 meta  2 log  3 snap
-- reply {base, snapshot or false, records, seq}, or {} when the store doesn't know the run
local m = redis.call('HMGET', KEYS[1], 'base', 'seq')
if not m[1] then return {} end
return {m[1], redis.call('GET', KEYS[3]), redis.call('LRANGE', KEYS[2], 0, -1), m[2]}
