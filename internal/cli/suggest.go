package cli

import "github.com/micro/sidecar/internal/suggest"

// suggestion returns ` (did you mean PREFIXname?)` for the candidate nearest to
// what was typed, "" when none is near.
func suggestion(typed, prefix string, candidates []string) string {
	best := suggest.Nearest(typed, candidates)
	if best == "" {
		return ""
	}
	return " (did you mean " + prefix + best + "?)"
}
