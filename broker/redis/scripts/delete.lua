-- KEYS[2]: the set of topics. KEYS[3]: the set of queues that expire. ARGV:
-- queue, how many messages at most, topic, for how many ms nobody must have
-- been there. Returns false, 1 when there is nothing more to do, or 0.
local q = ARGV[1]
if not queue_exists(q) then
	return false
end
local v = redis.call('HMGET', P .. 'q:' .. q, 'seen', 'made')
if now() - math.max(tonumber(v[1]), tonumber(v[2])) < tonumber(ARGV[4]) then
	return 1
end
local _, more = discard(q, tonumber(ARGV[2]), '+')
if more then
	return 0
end
redis.call('SREM', P .. 'queues', q)
redis.call('SREM', KEYS[3], ARGV[3] .. '}' .. q)
for _, kind in ipairs({'q:', 'due:', 'held:', 'members:', 'skip:'}) do
	redis.call('DEL', P .. kind .. q)
end
if redis.call('SCARD', P .. 'queues') == 0 then
	redis.call('DEL', P .. 'log', P .. 'refs', P .. 'count')
	redis.call('SREM', KEYS[2], ARGV[3])
end
redis.call('PUBLISH', P .. 'wake', q) -- members bring it back
return 1
