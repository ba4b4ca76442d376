-- ARGV: queue, member, how many at most. Returns false when there is no such
-- queue, else {ms until the next message is due or -1, ack wait in ms, then
-- for each message: id, delivery, attempt, message}.
local q, member, room = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not queue_exists(q) then
	return false
end
local key, due, log = P .. 'q:' .. q, P .. 'due:' .. q, P .. 'log'
local t = now()
redis.call('ZADD', P .. 'members:' .. q, t, member)
redis.call('HSET', key, 'seen', t)
local options = redis.call('HMGET', key, 'next', 'ack_wait', 'max')
local next, wait, max = options[1], tonumber(options[2]), tonumber(options[3])
local out = {-1, wait}

local function give(id, delivery, attempt, entry)
	hold(q, id, delivery, attempt)
	redis.call('ZADD', due, t + wait, id)
	table.insert(out, id)
	table.insert(out, delivery)
	table.insert(out, attempt)
	table.insert(out, entry[2][2])
	room = room - 1
end

-- What was given back, or not acknowledged in time.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', t, 'LIMIT', 0, room)) do
	local entry = redis.call('XRANGE', log, id, id)[1]
	local delivery, attempt = holding(q, id)
	if entry and delivery then
		give(id, delivery + 1, attempt + 1, entry)
	else -- somebody has taken it out of the log
		release(q, id)
	end
end

-- What is new, as long as not too many are given out.
while room > 0 do
	local n = room
	if max > 0 then
		n = math.min(n, max - redis.call('ZCARD', due))
	end
	local entries = {}
	if n > 0 then
		entries = redis.call('XRANGE', log, '(' .. next, '+', 'COUNT', n)
	end
	if #entries == 0 then
		break
	end
	for _, entry in ipairs(entries) do
		next = entry[1]
		redis.call('HINCRBY', key, 'read', 1)
		if redis.call('SREM', P .. 'skip:' .. q, next) == 0 then
			give(next, 1, 1, entry)
		end
	end
	redis.call('HSET', key, 'next', next)
end

local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if #first > 0 then
	out[1] = math.max(0, math.ceil(tonumber(first[2]) - t))
end
return out
