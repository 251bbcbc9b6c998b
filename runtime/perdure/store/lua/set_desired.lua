-- What is wanted of the run; its holder reads it with each renewal.
--
-- KEYS   1 meta
-- ARGV   1 desired: Running, Suspended, Cancelled or DeadlineExceeded
-- reply  OK 0
--        NOMETA 0

if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOMETA', 0} end

redis.call('HSET', KEYS[1], 'desired', ARGV[1])
return {'OK', 0}
