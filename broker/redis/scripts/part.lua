-- ARGV: queue, member. Takes a member off the list of those who are there.
redis.call('ZREM', P .. 'members:' .. ARGV[1], ARGV[2])
if queue_exists(ARGV[1]) then
	local key = P .. 'q:' .. ARGV[1]
	redis.call('HSET', key, 'seen', now())
	if redis.call('HGET', key, 'turn') == ARGV[2] then
		redis.call('HDEL', key, 'turn', 'turn_until')
		wake()
	end
end
return 1
