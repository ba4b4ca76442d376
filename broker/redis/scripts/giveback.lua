-- ARGV: queue, id, delivery, delay in ms, how much to take from the attempt.
local q, id = ARGV[1], ARGV[2]
local delivery, attempt = holding(q, id)
if delivery ~= tonumber(ARGV[3]) then
	return 0
end
hold(q, id, delivery + 1, attempt - ARGV[5]) -- what the caller knows is over
local due = stored(id)
if ARGV[4] ~= '0' then
	due = now() + ARGV[4] + DELAYED
end
redis.call('ZADD', P .. 'due:' .. q, due, id)
wake()
return 1
