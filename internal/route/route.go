// Package route turns a request's path into the service, and for RPC the
// method, that it names. It is pure functions over the path as it came, still
// percent-encoded; it knows no registry and decides nothing about who may call.
package route

import "strings"

// maxParts is how many path elements fit without an allocation for the list.
const maxParts = 16

// RPC maps a path to a service and a method, as the 2017 sidecar did:
//
//	/foo/bar              foo          Foo.Bar
//	/foo/bar/baz          foo          Bar.Baz
//	/foo/bar/baz/cat      foo.bar      Baz.Cat
//	/v1/foo/bar           v1.foo       Foo.Bar
//	/foo/bar/baz-xyz      foo          Bar.BazXyz
//
// with the namespace and a dot in front of the service, unless it is empty.
// Empty elements and "." are dropped, ".." is resolved, and each element is
// percent-decoded after the path was split, so that an encoded slash stays
// within its element. ok is false when the path names no method of a service:
// it has fewer than two elements, or a broken percent-encoding.
func RPC(namespace, path string) (service, method string, ok bool) {
	var room [maxParts]string
	parts, ok := split(room[:0], path)
	if !ok || len(parts) < 2 {
		return "", "", false
	}
	// How many elements name the service, and where the method's begin.
	serviceEnd, methodStart := len(parts)-2, len(parts)-2
	switch {
	case len(parts) == 2:
		serviceEnd, methodStart = 1, 0
	case len(parts) == 3 && isVersion(parts[0]):
		serviceEnd = 2
	}

	var buf [128]byte
	b := join(buf[:0], namespace, parts[:serviceEnd])
	service = string(b)

	b = buf[:0]
	for i, p := range parts[methodStart:] {
		if i > 0 {
			b = append(b, '.')
		}
		b = appendTitle(b, p)
	}
	return service, string(b), true
}

// Proxy maps a path to the service that its first element names, or its first
// two when the first is a version (/v1/greeter/x is v1.greeter). Only empty
// elements are passed over: the path goes to the node as it came, so nothing
// is resolved here that the node would see unresolved. ok is false when there
// is no first element, or it is "." or "..", or broken percent-encoding.
func Proxy(namespace, path string) (service string, ok bool) {
	first, rest := next(path)
	if first, ok = decode(first); !ok || first == "" || isDots(first) {
		return "", false
	}
	var room [2]string
	parts := append(room[:0], first)
	if isVersion(first) {
		second, _ := next(rest)
		if second, ok = decode(second); !ok || isDots(second) {
			return "", false
		}
		if second != "" {
			parts = append(parts, second)
		}
	}
	var buf [128]byte
	return string(join(buf[:0], namespace, parts)), true
}

// split appends the elements of path, decoded and cleaned, to parts.
func split(parts []string, path string) ([]string, bool) {
	for {
		var element string
		element, path = next(path)
		if element == "" {
			return parts, true
		}
		element, ok := decode(element)
		switch {
		case !ok:
			return nil, false
		case element == ".":
		case element == "..":
			parts = parts[:max(len(parts)-1, 0)]
		default:
			parts = append(parts, element)
		}
	}
}

// next cuts the first non-empty element off the path.
func next(path string) (element, rest string) {
	for path != "" && path[0] == '/' {
		path = path[1:]
	}
	element, rest, _ = strings.Cut(path, "/")
	return element, rest
}

// join appends the namespace and the parts, with dots between them.
func join(b []byte, namespace string, parts []string) []byte {
	b = append(b, namespace...)
	for i, p := range parts {
		if i > 0 || namespace != "" {
			b = append(b, '.')
		}
		b = append(b, p...)
	}
	return b
}

// isVersion reports whether s is v and digits.
func isVersion(s string) bool {
	if len(s) < 2 || s[0] != 'v' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// isDots reports whether s is a dot segment (RFC 3986 section 5.2.4).
func isDots(s string) bool { return s == "." || s == ".." }
