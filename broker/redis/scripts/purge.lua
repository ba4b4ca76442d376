-- ARGV: queue, how many at most, the last id that is meant. Returns false, or
-- {how many were dropped, 1 when there may be more}.
if not queue_exists(ARGV[1]) then
	return false
end
local dropped, more = discard(ARGV[1], tonumber(ARGV[2]), ARGV[3])
wake()
return {dropped, more and 1 or 0}
