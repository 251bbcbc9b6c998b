-- Creates a run at epoch 1 with record 0, its input; does nothing when it is there.
-- KEYS  1 meta  2 log
-- ARGV  1 record 0  2 installation  3 format
-- reply {OK, seq}
local seq = redis.call('HGET', KEYS[1], 'seq')
if seq then return {'OK', tonumber(seq)} end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'format', ARGV[3], 'installation', ARGV[2], 'epoch', 1, 'holder', '', 'seq', 0,
  'stepSeq', 0, 'base', -1, 'desired', 'Running', 'cause', '', 'released', '', 'logBytes', #ARGV[1])
return {'OK', 0}
