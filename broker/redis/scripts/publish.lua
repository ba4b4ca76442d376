-- ARGV: message, id ("" for none), how long the id is remembered in ms.
local message, once, window = ARGV[1], ARGV[2], ARGV[3]
if once ~= '' and redis.call('EXISTS', P .. 'id:' .. once) == 1 then
	return 0
end
local queues = redis.call('SCARD', P .. 'queues')
if queues > 0 then
	local id = redis.call('XADD', P .. 'log', '*', 'm', message)
	redis.call('INCR', P .. 'count')
	if queues > 1 then
		redis.call('HSET', P .. 'refs', id, queues)
	end
	wake()
end
if once ~= '' then
	redis.call('SET', P .. 'id:' .. once, '1', 'PX', window)
end
redis.call('PUBLISH', P .. 'live', message)
-- A live queue's members take turns; one that hears nothing is not there.
for _, q in ipairs(redis.call('SMEMBERS', P .. 'shared')) do
	local members = P .. 'shared:' .. q
	local tries = redis.call('LLEN', members)
	while tries > 0 do
		local m = redis.call('RPOPLPUSH', members, members)
		if redis.call('PUBLISH', P .. 'to:' .. m, message) > 0 then
			break
		end
		redis.call('LREM', members, 0, m)
		tries = tries - 1
	end
	if tries == 0 then
		redis.call('SREM', P .. 'shared', q)
	end
end
return 1
