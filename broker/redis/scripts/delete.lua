-- KEYS[2]: the set of topics. ARGV: queue, how many messages at most, topic,
-- and for a queue that is to be deleted only when nobody was there: the ms
-- since when, else "". Returns false, or 1 when the queue is gone, 0 when
-- more is to be done.
local q = ARGV[1]
if not queue_exists(q) then
	return false
end
if ARGV[4] ~= '' then
	local v = redis.call('HMGET', P .. 'q:' .. q, 'seen', 'made')
	if now() - math.max(tonumber(v[1]), tonumber(v[2])) < tonumber(ARGV[4]) then
		return 1
	end
end
local _, more = discard(q, tonumber(ARGV[2]), '+')
if more then
	return 0
end
redis.call('SREM', P .. 'queues', q)
for _, kind in ipairs({'q:', 'due:', 'held:', 'members:', 'skip:'}) do
	redis.call('DEL', P .. kind .. q)
end
if redis.call('SCARD', P .. 'queues') == 0 then
	redis.call('DEL', P .. 'log', P .. 'refs', P .. 'count')
	redis.call('SREM', KEYS[2], ARGV[3])
end
wake()
return 1
