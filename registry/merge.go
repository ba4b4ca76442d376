package registry

import (
	"cmp"
	"slices"
	"strings"
)

// Merge makes one Service of the versions that [Registry.Get] answered: the
// nodes of all of them together, sorted by ID, and the version, metadata and
// endpoints of the newest, see [CompareVersions]. The result is normalised.
func Merge(name string, versions []Service) Service {
	merged := Service{Name: name}
	if len(versions) > 0 {
		newest := slices.MaxFunc(versions, func(a, b Service) int { return CompareVersions(a.Version, b.Version) })
		merged.Version, merged.Metadata, merged.Endpoints = newest.Version, newest.Metadata, newest.Endpoints
	}
	for _, v := range versions {
		merged.Nodes = append(merged.Nodes, v.Nodes...)
	}
	slices.SortStableFunc(merged.Nodes, byID)
	return Normalize(merged)
}

// Normalize returns s with empty maps and slices in place of nil ones, the
// nodes' metadata included, so that its JSON has {} and [] and never null. s
// itself is left as it was; maps that are there are shared with the result.
func Normalize(s Service) Service {
	if s.Metadata == nil {
		s.Metadata = map[string]string{}
	}
	if s.Endpoints == nil {
		s.Endpoints = []Endpoint{}
	}
	nodes := make([]Node, len(s.Nodes))
	for i, n := range s.Nodes {
		if n.Metadata == nil {
			n.Metadata = map[string]string{}
		}
		nodes[i] = n
	}
	s.Nodes = nodes
	return s
}

// Sort puts services in the order that [Registry.Get] promises: by version as
// in [CompareVersions], each one's nodes by ID. It sorts in place.
func Sort(services []Service) {
	slices.SortStableFunc(services, func(a, b Service) int { return CompareVersions(a.Version, b.Version) })
	for _, s := range services {
		slices.SortStableFunc(s.Nodes, byID)
	}
}

func byID(a, b Node) int { return cmp.Compare(a.ID, b.ID) }

// CompareVersions says which of two versions is older, in natural order: runs
// of digits compare as numbers, all else by bytes, so 1.9.0 comes before
// 1.10.0. As in Semantic Versioning, 1.0.0-rc1 comes before 1.0.0: what
// follows the first hyphen is a step on the way to what stands before it. The
// empty version is the oldest. Only equal strings compare as 0.
func CompareVersions(a, b string) int {
	if a == "" || b == "" {
		return cmp.Compare(len(a), len(b))
	}
	coreA, preA, hasA := strings.Cut(a, "-")
	coreB, preB, hasB := strings.Cut(b, "-")
	if c := compareNatural(coreA, coreB); c != 0 {
		return c
	}
	switch {
	case hasA && !hasB:
		return -1
	case !hasA && hasB:
		return +1
	}
	if c := compareNatural(preA, preB); c != 0 {
		return c
	}
	return cmp.Compare(a, b) // 1.0 and 1.00
}

func compareNatural(a, b string) int {
	for a != "" && b != "" {
		numA, restA := leadingNumber(a)
		numB, restB := leadingNumber(b)
		if numA != "" && numB != "" {
			if c := compareNumbers(numA, numB); c != 0 {
				return c
			}
			a, b = restA, restB
			continue
		}
		if c := cmp.Compare(a[0], b[0]); c != 0 {
			return c
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingNumber(s string) (digits, rest string) {
	rest = strings.TrimLeft(s, "0123456789")
	return s[:len(s)-len(rest)], rest
}

// compareNumbers compares decimal numbers of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return cmp.Compare(a, b)
}
