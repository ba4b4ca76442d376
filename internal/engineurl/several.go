package engineurl

import (
	"fmt"
	"slices"
	"strings"
)

// Pair shares out the addresses of several engines, which stand one after the
// other with commas between. An address with a scheme that is an engine's name
// is that engine's; the others go to the engines that are left, in order. As
// an address may be a list of hosts itself, a comma ends an address with a
// scheme only where the next one has a scheme, too; without any scheme each
// comma counts, and nothing between two is no address. The result has an
// address, perhaps "", for every name.
func Pair(names []string, text string) ([]string, error) {
	addresses := make([]string, len(names))
	if text == "" {
		return addresses, nil
	}
	if len(names) == 1 {
		return []string{text}, nil
	}
	parts := split(text)
	if !strings.Contains(text, "://") {
		parts = strings.Split(text, ",")
		if len(parts) != len(names) {
			return nil, fmt.Errorf("%d addresses for %d engines: expected one for each of %s, in order, or each with its scheme: %s://…",
				len(parts), len(names), strings.Join(names, ", "), names[0])
		}
		return parts, nil
	}
	var rest []string
	for _, part := range parts {
		scheme, _, _ := strings.Cut(part, "://")
		i := slices.Index(names, scheme)
		switch {
		case i < 0:
			rest = append(rest, part)
		case addresses[i] != "":
			return nil, fmt.Errorf("two addresses for %s", scheme)
		default:
			addresses[i] = part
		}
	}
	for i := range names {
		if addresses[i] == "" && len(rest) > 0 {
			addresses[i], rest = rest[0], rest[1:]
		}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("more addresses than engines: expected at most one for each of %s", strings.Join(names, ", "))
	}
	return addresses, nil
}

// split splits at the commas that a scheme follows.
func split(text string) []string {
	var parts []string
	for piece := range strings.SplitSeq(text, ",") {
		scheme, _, found := strings.Cut(piece, "://")
		if len(parts) == 0 || found && isScheme(scheme) {
			parts = append(parts, piece)
		} else {
			parts[len(parts)-1] += "," + piece
		}
	}
	return parts
}

func isScheme(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '+' && r != '-' && r != '.'
	})
}
