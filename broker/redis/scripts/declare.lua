-- KEYS[2]: the set of topics. KEYS[3]: the set of queues that expire. ARGV: queue, topic, ack wait of a new queue in
-- ms, and ack wait, max in flight, expiry as they are asked for; "" leaves
-- them as they are.
local q = ARGV[1]
local key = P .. 'q:' .. q
if not queue_exists(q) then
	redis.call('SADD', P .. 'queues', q)
	local last = redis.call('XREVRANGE', P .. 'log', '+', '-', 'COUNT', 1)
	local next = '0-0'
	if #last > 0 then
		next = last[1][1]
	end
	redis.call('HSET', key, 'next', next, 'read', 0, 'from', redis.call('GET', P .. 'count') or 0,
		'ack_wait', ARGV[3], 'max', 0, 'expires', 0, 'made', now(), 'seen', 0)
	redis.call('SADD', KEYS[2], ARGV[2])
end
for i, field in ipairs({'ack_wait', 'max', 'expires'}) do
	if ARGV[3 + i] ~= '' then
		redis.call('HSET', key, field, ARGV[3 + i])
	end
end
-- An escaped topic holds no brace.
if redis.call('HGET', key, 'expires') == '0' then
	redis.call('SREM', KEYS[3], ARGV[2] .. '}' .. q)
else
	redis.call('SADD', KEYS[3], ARGV[2] .. '}' .. q)
end
return 1
