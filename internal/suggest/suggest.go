// Package suggest finds the name that somebody who mistyped probably meant. It
// owns the distance between names and no list of them.
package suggest

import "strings"

// maxTyped bounds the work of distance: nothing longer is near to any name.
const maxTyped = 64

// Nearest returns the candidate nearest to what was typed, "" when none is
// near. Case, and - for _, make no difference.
func Nearest(typed string, candidates []string) string {
	best, least := "", 1+max(2, len(typed)/3)
	plain := strings.ReplaceAll(strings.ToLower(typed), "-", "_")
	for _, candidate := range candidates {
		if d := distance(plain, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b in bytes.
func distance(a, b string) int {
	if len(a) > maxTyped {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
