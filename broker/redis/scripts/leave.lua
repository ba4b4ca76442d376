-- ARGV: live queue, member.
local members = P .. 'shared:' .. ARGV[1]
redis.call('LREM', members, 0, ARGV[2])
if redis.call('EXISTS', members) == 0 then
	redis.call('SREM', P .. 'shared', ARGV[1])
end
return 1
