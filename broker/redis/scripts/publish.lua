-- KEYS[1]: the topic's. ARGV: how long ids are remembered in ms, then for each
-- message its id ("" for none) and the message. Nothing is stored when there is
-- no room for all.
local window, queues = ARGV[1], redis.call('SCARD', P .. 'queues')
local shared = redis.call('SMEMBERS', P .. 'shared')

-- share gives a message to the members of a live queue in turn; one that hears
-- nothing is not there.
local function share(q, message)
	local members = P .. 'shared:' .. q
	for _ = 1, redis.call('LLEN', members) do
		local m = redis.call('RPOPLPUSH', members, members)
		if redis.call('PUBLISH', P .. 'to:' .. m, message) > 0 then
			return
		end
		redis.call('LREM', members, 0, m)
	end
	redis.call('SREM', P .. 'shared', q)
end

local function publish(message)
	if queues > 0 then
		local id = redis.call('XADD', P .. 'log', '*', 'm', message)
		redis.call('INCR', P .. 'count')
		if queues > 1 then
			redis.call('HSET', P .. 'refs', id, queues)
		end
	end
	redis.call('PUBLISH', P .. 'live', message)
	for _, q in ipairs(shared) do
		share(q, message)
	end
end

for i = 2, #ARGV, 2 do
	local once = P .. 'id:' .. ARGV[i]
	if ARGV[i] == '' then
		publish(ARGV[i + 1])
	elseif redis.call('EXISTS', once) == 0 then
		publish(ARGV[i + 1])
		redis.call('SET', once, '1', 'PX', window)
	else
		redis.call('SET', once, '1', 'KEEPTTL') -- WAIT waits for who has written
	end
end
if queues > 0 then
	wake()
end
return 1
