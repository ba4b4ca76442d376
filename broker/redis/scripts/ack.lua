-- ARGV: queue, id, delivery. 0 means that the message is not with the caller
-- any more.
local q, id = ARGV[1], ARGV[2]
if holding(q, id) ~= tonumber(ARGV[3]) then
	return 0
end
release(q, {id})
if redis.call('HGET', P .. 'q:' .. q, 'max') ~= '0' then
	wake() -- there is room for another
end
return 1
