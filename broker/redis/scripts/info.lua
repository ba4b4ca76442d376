-- ARGV: queue, how long in ms a member counts as there after its last sign.
-- Returns false, or {lag, held, id of the oldest message or "", members, last
-- seen in ms, ack wait, max, expires, ms since somebody was there}.
local q = ARGV[1]
if not queue_exists(q) then
	return false
end
local key, t = P .. 'q:' .. q, now()
local v = redis.call('HMGET', key, 'next', 'read', 'from', 'ack_wait', 'max', 'expires', 'seen', 'made')
local members = P .. 'members:' .. q
redis.call('ZREMRANGEBYSCORE', members, '-inf', t - ARGV[2])
local lag = (redis.call('GET', P .. 'count') or 0) - v[3] - v[2] - redis.call('SCARD', P .. 'skip:' .. q)
local oldest = ''
local waiting = redis.call('XRANGE', P .. 'log', '(' .. v[1], '+', 'COUNT', 1)
if #waiting > 0 then
	oldest = waiting[1][1]
end
-- What is given out is not sorted by age; a bounded look is enough for people.
for _, id in ipairs(redis.call('ZRANGE', P .. 'due:' .. q, 0, 999)) do
	if oldest == '' or after(oldest, id) then
		oldest = id
	end
end
local since = t - math.max(tonumber(v[7]), tonumber(v[8]))
return {lag, redis.call('ZCARD', P .. 'due:' .. q), oldest, redis.call('ZCARD', members),
	tonumber(v[7]), tonumber(v[4]), tonumber(v[5]), tonumber(v[6]), since}
