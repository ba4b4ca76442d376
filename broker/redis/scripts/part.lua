-- ARGV: queue, member. Takes a member off the list of those who are there.
redis.call('ZREM', P .. 'members:' .. ARGV[1], ARGV[2])
return 1
