-- Creates a run, only if it is absent.
--
-- KEYS   1 meta   2 log   3 snap
-- ARGV   1 record 0, framed   2 its digest   3 installation   4 the server's run_id
-- reply  OK epoch        it is there now, or was before
--        CONFLICT 0      meta is gone, but a log or snapshot is left: a part of the run was lost

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch then return {'OK', tonumber(epoch)} end
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return {'CONFLICT', 0} end

redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1],
  'format', 1, 'installation', ARGV[3], 'epoch', 1, 'holder', '', 'seq', 0, 'digest', ARGV[2],
  'stepSeq', 0, 'base', -1, 'desired', 'Running', 'logBytes', #ARGV[1], 'storeRunId', ARGV[4])
return {'OK', 1}
