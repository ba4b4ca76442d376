-- ARGV: queue, id, delivery.
local q, id = ARGV[1], ARGV[2]
if holding(q, id) ~= tonumber(ARGV[3]) then
	return 0
end
redis.call('ZADD', P .. 'due:' .. q, now() + redis.call('HGET', P .. 'q:' .. q, 'ack_wait'), id)
return 1
