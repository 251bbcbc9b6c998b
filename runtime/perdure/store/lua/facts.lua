-- One consistent read of all that is judged of a run. Writes nothing.
--
-- KEYS   1 meta   2 lease   3 inbox
-- ARGV   none
-- reply  OK 0 meta lease pttl inbox seconds microseconds
--        meta: names and values in turn, empty when the run isn't known; lease: '' for none;
--        pttl in ms; inbox: how many events wait

local time = redis.call('TIME')
return {'OK', 0, redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2]) or '',
  redis.call('PTTL', KEYS[2]), redis.call('XLEN', KEYS[3]), time[1], time[2]}
