-- What the operator wants of the run; its runner reads it with each renewal.
-- KEYS  1 meta
-- ARGV  1 desired
-- reply {OK, 0}  {NOMETA}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOMETA'} end
redis.call('HSET', KEYS[1], 'desired', ARGV[1])
return {'OK', 0}
