-- Takes a run: an epoch is used by one holder, once.
-- KEYS  1 meta  2 lease
-- ARGV  1 epoch  2 holder  3 ttl ms  4 the server's run_id  5 durable: always, everysec, no or unknown
-- reply {OK, seq, desired, cause, seconds, microseconds, restarted 0/1}
--       {FENCED, the store's epoch}  {OUTCOME, 0, outcome}  {NOMETA}
local m = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'seq', 'desired', 'cause', 'outcome', 'deleted',
  'storeRunId')
if not m[1] then return {'NOMETA'} end
if m[6] then return {'OUTCOME', 0, m[6]} end
local epoch, mine = tonumber(m[1]), tonumber(ARGV[1])
if m[7] or mine < epoch then return {'FENCED', epoch} end
local raised = mine > epoch
local holder = m[2]
-- A store that went back to an older epoch must not keep the newer one's holder out.
if raised then holder = '' end
if holder ~= '' and holder ~= ARGV[2] then return {'FENCED', epoch} end
local restarted = 0
if m[8] and m[8] ~= ARGV[4] and ARGV[5] ~= 'always' then restarted = 1 end
local cuts = {}
local cause = m[5]
if holder == '' and (cause == 'Crashed' or cause == 'OOMKilled' or cause == 'LeaseExpired' or cause == 'Fenced'
    or cause == 'StartTimeout') then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 4) == 'inv:' then
      local count, step = string.match(all[i + 1], '^(%d+) (.*)$')
      if count then
        cuts[#cuts + 1] = all[i]
        cuts[#cuts + 1] = (tonumber(count) + 1) .. ' ' .. step
      end
    end
  end
end
local now = redis.call('TIME')
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'holder', ARGV[2], 'released', '', 'storeRunId', ARGV[4],
  unpack(cuts))
redis.call('HDEL', KEYS[1], 'wakeAt')
if restarted == 1 then redis.call('HINCRBY', KEYS[1], 'restarts', 1) end
return {'OK', tonumber(m[3]), m[4], cause, now[1], now[2], restarted}
