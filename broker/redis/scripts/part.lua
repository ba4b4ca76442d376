-- ARGV: queue, member. Takes a member off the list of those who are there.
redis.call('ZREM', P .. 'members:' .. ARGV[1], ARGV[2])
if queue_exists(ARGV[1]) then
	redis.call('HSET', P .. 'q:' .. ARGV[1], 'seen', now())
end
return 1
