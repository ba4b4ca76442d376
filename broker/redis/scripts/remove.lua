-- ARGV: queue, id. Returns false, 0 when the queue does not hold the message,
-- or 1.
local q, id = ARGV[1], ARGV[2]
if not queue_exists(q) then
	return false
end
if holding(q, id) then
	release(q, {id})
	wake()
	return 1
end
local key = P .. 'q:' .. q
if not after(id, redis.call('HGET', key, 'next')) or #redis.call('XRANGE', P .. 'log', id, id) == 0 then
	return 0
end
if tonumber(redis.call('HGET', P .. 'refs', id) or 1) <= 1 then
	redis.call('HINCRBY', key, 'read', 1) -- it will not be met in the log
elseif redis.call('SADD', P .. 'skip:' .. q, id) == 0 then
	return 0
end
forget({id})
return 1
