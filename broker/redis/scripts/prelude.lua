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

-- queue_exists is false, too, for one whose description somebody has deleted: its
-- members declare it anew.
local function queue_exists(q)
	return redis.call('SISMEMBER', P .. 'queues', q) == 1 and redis.call('HEXISTS', P .. 'q:' .. q, 'next') == 1
end

local function wake()
	redis.call('PUBLISH', P .. 'wake', '')
end

-- forget takes messages, some thousand at most, out of the log when the queue was
-- the last to want them.
local function forget(ids)
	if #ids == 0 then
		return
	end
	local wanted, last = redis.call('HMGET', P .. 'refs', unpack(ids)), {}
	for i, id in ipairs(ids) do
		if tonumber(wanted[i] or 1) > 1 then
			redis.call('HINCRBY', P .. 'refs', id, -1)
		else
			last[#last + 1] = id
		end
	end
	if #last > 0 then
		redis.call('HDEL', P .. 'refs', unpack(last))
		redis.call('XDEL', P .. 'log', unpack(last))
	end
end

-- release ends what a queue knows of messages that were given to members.
local function release(q, ids)
	if #ids > 0 then
		redis.call('ZREM', P .. 'due:' .. q, unpack(ids))
		redis.call('HDEL', P .. 'held:' .. q, unpack(ids))
		forget(ids)
	end
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
	local given = redis.call('ZRANGE', P .. 'due:' .. q, 0, n - 1)
	release(q, given)
	local key, room = P .. 'q:' .. q, n - #given
	if room == 0 then
		return n, true
	end
	local rest = redis.call('XRANGE', P .. 'log', '(' .. redis.call('HGET', key, 'next'), last, 'COUNT', room)
	if #rest == 0 then
		return #given, false
	end
	local skips, ids = redis.call('SCARD', P .. 'skip:' .. q), {}
	for _, entry in ipairs(rest) do
		if skips == 0 or redis.call('SREM', P .. 'skip:' .. q, entry[1]) == 0 then
			ids[#ids + 1] = entry[1]
		end
	end
	forget(ids)
	redis.call('HSET', key, 'next', rest[#rest][1])
	redis.call('HINCRBY', key, 'read', #rest)
	return #given + #ids, #rest == room
end
