-- ARGV: queue, member, how many at most, how many bytes at most or -1, 1 when
-- the member holds nothing: then a single message may be larger, the number of
-- the call unless that takes nothing, 1 when the member cannot be sure to know
-- what was given to it, and then the ids of what it knows of.
-- Returns false when there is no such queue, else {ms until there may be a
-- message to take or -1, ack wait in ms, for how many ms the member has the turn
-- of an ordered queue, 0 when another has it and -1 for other queues, then for
-- each message: id, delivery, attempt, message}.
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
local out = {-1, wait, -1}

-- recall makes due what is given out, but for what is known to the member with
-- the turn and what waits for the end of a delay. Whoever had it finds its
-- number over.
local function recall(known)
	local given = redis.call('ZRANGEBYSCORE', due, '(' .. t, '+inf', 'WITHSCORES')
	for i = 1, #given, 2 do
		local id = given[i]
		local delivery, attempt = holding(q, id)
		if delivery and not known[id] and tonumber(given[i + 1]) % 1 ~= DELAYED then
			hold(q, id, delivery + 1, attempt)
			redis.call('ZADD', due, stored(id), id)
		end
	end
end

-- One member of an ordered queue has the turn, for as long as it says so in
-- time. By its own clock that is over a little earlier, and it has nothing any
-- more when the next one begins.
if max > 0 then
	local turn = redis.call('HMGET', key, 'turn', 'turn_until', 'turn_call')
	local lease, taken, known = math.min(math.max(wait, 2500), 10000), tonumber(turn[2] or 0), {}
	if turn[1] ~= member then
		if room == 0 or turn[1] and taken > t then
			out[1], out[3] = math.max(0, taken - t), 0
			return out
		end
		recall(known)
	elseif room > 0 and tonumber(ARGV[6]) <= tonumber(turn[3]) then
		return out -- it was on its way for too long: nobody waits for the answer
	elseif room > 0 and ARGV[7] == '1' then
		for i = 8, #ARGV do
			known[ARGV[i]] = true
		end
		recall(known)
	end
	if room > 0 then
		redis.call('HSET', key, 'turn_call', ARGV[6])
	end
	redis.call('HSET', key, 'turn', member, 'turn_until', t + lease)
	out[3] = lease
end

local left, empty, full = tonumber(ARGV[4]), ARGV[5] == '1', false

-- fits notes that a message is given, or that there is no room for its bytes.
local function fits(entry)
	local size = #entry[2][2]
	full = left >= 0 and size > left and not empty
	if not full and left >= 0 then
		left, empty = math.max(0, left - size), false
	end
	return not full
end

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
local back
if max > 0 then
	back = redis.call('ZRANGEBYSCORE', due, '-inf', t)
	table.sort(back, function(a, b) return after(b, a) end)
else
	back = redis.call('ZRANGEBYSCORE', due, '-inf', t, 'LIMIT', 0, room)
end
for _, id in ipairs(back) do
	if room == 0 or full then
		break
	end
	local entry = redis.call('XRANGE', log, id, id)[1]
	local delivery, attempt = holding(q, id)
	if entry and delivery and not fits(entry) then
		break
	elseif entry and delivery then
		give(id, delivery + 1, attempt + 1, entry)
	else -- somebody has taken it out of the log
		release(q, id)
	end
end

-- What is new, as long as not too many are given out.
while room > 0 and not full do
	local n = room
	if max > 0 then
		n = math.min(n, max - redis.call('ZCARD', due))
	end
	if left >= 0 then
		n = math.min(n, 16) -- they may be large
	end
	local entries = {}
	if n > 0 then
		entries = redis.call('XRANGE', log, '(' .. next, '+', 'COUNT', n)
	end
	if #entries == 0 then
		break
	end
	for _, entry in ipairs(entries) do
		local skipped = redis.call('SISMEMBER', P .. 'skip:' .. q, entry[1]) == 1
		if not skipped and not fits(entry) then
			break
		end
		next = entry[1]
		redis.call('HINCRBY', key, 'read', 1)
		if skipped then
			redis.call('SREM', P .. 'skip:' .. q, next)
		else
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
