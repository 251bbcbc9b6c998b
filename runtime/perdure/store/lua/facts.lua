-- One consistent look at a run; writes nothing.
-- KEYS  1 meta  2 lease  3 inbox
-- reply {meta as a flat list, lease or '', its milliseconds left, inbox length, seconds, microseconds}
local now = redis.call('TIME')
return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2]) or '', redis.call('PTTL', KEYS[2]),
  redis.call('XLEN', KEYS[3]), now[1], now[2]}
