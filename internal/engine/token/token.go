// Package token turns any text into one token of a NATS subject, for keys of
// a bucket and for topics, and back.
package token

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	// maxLen is the longest token in bytes; a server takes a line of 4096 for
	// all of a subject, its reply subject and the sizes.
	maxLen = 255
	// hashed marks a token that is a digest; h is no hexadecimal digit, so no
	// escape looks like it.
	hashed = "=h"
	hexDig = "0123456789ABCDEF"
)

// Encode keeps ASCII letters, digits, - and _, and writes any other byte as =
// and two hexadecimal digits: no dot, wildcard, $ or space is left. A text
// whose token would be too long becomes the mark =h and its SHA-256. Different
// texts have different tokens; only the empty one has an empty token.
func Encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('=')
			b.WriteByte(hexDig[c>>4])
			b.WriteByte(hexDig[c&15])
		}
		if b.Len() > maxLen {
			return Digest(s)
		}
	}
	return b.String()
}

// Digest returns the token that Encode has for texts that are too long.
func Digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hashed + hex.EncodeToString(sum[:])
}

// Decode returns the text of a token, false when the token is a digest or
// nothing that Encode has made.
func Decode(token string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case plain(c):
		case c == '=' && i+2 < len(token):
			hi, lo := strings.IndexByte(hexDig, token[i+1]), strings.IndexByte(hexDig, token[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
		default:
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), b.Len() > 0 && Encode(b.String()) == token
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
