-- What the scripts share. KEYS[1] is what all keys of a topic begin with.
local P = KEYS[1]

-- now is the server's time in ms: members' clocks do not matter.
local function now()
	local t = redis.call('TIME')
	return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- DELAYED is the part of a ms that marks a due time as the end of a delay. That
-- of a message which a member has is whole.
local DELAYED = 0.5

local function parts(id)
	local ms, seq = string.match(id, '^(%d+)-(%d+)$')
	return tonumber(ms), tonumber(seq)
end

-- stored is a due time in the past that keeps the order of the log: 41 bits of
-- ms and 12 of sequence are what a double holds.
local function stored(id)
	local ms, seq = parts(id)
	return string.format('%.6f', ms + math.min(seq, 4095) / 4096)
end

local function after(a, b)
	local ams, aseq = parts(a)
	local bms, bseq = parts(b)
	return ams > bms or ams == bms and aseq > bseq
end

local function queue_exists(q)
	return redis.call('SISMEMBER', P .. 'queues', q) == 1
end

local function wake()
	redis.call('PUBLISH', P .. 'wake', '')
end

-- forget takes a message out of the log when the queue was the last to want it.
local function forget(id)
	local wanted = tonumber(redis.call('HGET', P .. 'refs', id) or 1)
	if wanted > 1 then
		redis.call('HINCRBY', P .. 'refs', id, -1)
		return
	end
	redis.call('HDEL', P .. 'refs', id)
	redis.call('XDEL', P .. 'log', id)
end

-- release ends what a queue knows of a message that was given to a member.
local function release(q, id)
	redis.call('ZREM', P .. 'due:' .. q, id)
	redis.call('HDEL', P .. 'held:' .. q, id)
	forget(id)
end

-- holding returns the delivery's number and the attempt of a message that is
-- given out, or nil.
local function holding(q, id)
	local v = redis.call('HGET', P .. 'held:' .. q, id)
	if not v then
		return nil
	end
	local delivery, attempt = string.match(v, '^(%d+):(%d+)$')
	return tonumber(delivery), tonumber(attempt)
end

local function hold(q, id, delivery, attempt)
	redis.call('HSET', P .. 'held:' .. q, id, string.format('%d:%d', delivery, attempt))
end

-- discard drops up to n messages of the queue, not beyond the id last, and
-- returns how many those were and whether there may be more.
local function discard(q, n, last)
	local dropped = 0
	for _, id in ipairs(redis.call('ZRANGE', P .. 'due:' .. q, 0, n - 1)) do
		release(q, id)
		dropped = dropped + 1
	end
	if dropped == n then
		return dropped, true
	end
	local key, room = P .. 'q:' .. q, n - dropped
	local rest = redis.call('XRANGE', P .. 'log', '(' .. redis.call('HGET', key, 'next'), last, 'COUNT', room)
	for i = 1, #rest do
		local id = rest[i][1]
		redis.call('HSET', key, 'next', id)
		redis.call('HINCRBY', key, 'read', 1)
		if redis.call('SREM', P .. 'skip:' .. q, id) == 0 then
			forget(id)
			dropped = dropped + 1
		end
	end
	return dropped, #rest == room
end
