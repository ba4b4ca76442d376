-- ARGV: queue. Returns false, or {the last id that was given out first, then
-- the ids that are given out}.
if not queue_exists(ARGV[1]) then
	return false
end
local out = redis.call('ZRANGE', P .. 'due:' .. ARGV[1], 0, -1)
table.insert(out, 1, redis.call('HGET', P .. 'q:' .. ARGV[1], 'next'))
return out
