-- ARGV: live queue, member. Adds the member, who already listens.
local members = P .. 'shared:' .. ARGV[1]
redis.call('LREM', members, 0, ARGV[2])
redis.call('LPUSH', members, ARGV[2])
redis.call('SADD', P .. 'shared', ARGV[1])
return 1
