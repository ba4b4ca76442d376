package route

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// decode undoes the percent-encoding of one path element. It allocates only
// when there is some.
func decode(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	d, err := url.PathUnescape(s)
	return d, err == nil
}

// appendTitle appends s with the first letter of each word in upper case.
// Words joined by "-" lose it (baz-xyz is BazXyz); other separators stay
// (say.hello is Say.Hello).
func appendTitle(b []byte, s string) []byte {
	start := true
	for i, r := range s {
		switch {
		case r == '-':
			start = true
		case start:
			b = appendUpper(b, s[i:], r)
			start = separates(r)
		default:
			b = appendRune(b, s[i:], r)
			start = separates(r)
		}
	}
	return b
}

// appendUpper appends r, which rest begins with, in upper case.
func appendUpper(b []byte, rest string, r rune) []byte {
	if up := unicode.ToTitle(r); up != r {
		return utf8.AppendRune(b, up)
	}
	return appendRune(b, rest, r)
}

// appendRune appends r as rest begins with it: a byte that is no UTF-8 stays.
func appendRune(b []byte, rest string, r rune) []byte {
	if r == utf8.RuneError {
		_, size := utf8.DecodeRuneInString(rest)
		return append(b, rest[:size]...)
	}
	return utf8.AppendRune(b, r)
}

// separates reports whether a word ends at r. Of ASCII that is all but
// letters, digits and the underscore; beyond it, white space alone, as in the
// 2017 sidecar.
func separates(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_':
		return false
	case r < utf8.RuneSelf:
		return true
	}
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && unicode.IsSpace(r)
}
