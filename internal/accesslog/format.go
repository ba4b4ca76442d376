package accesslog

import (
	"net"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendJSON writes a line of JSON. What is not known is left out.
func appendJSON(b []byte, e *Entry) []byte {
	b = append(b, `{"time":"`...)
	b = e.Begun.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, '"')
	for _, f := range []struct{ name, value string }{
		{"remote", e.Remote}, {"method", e.Method}, {"host", e.Host}, {"path", e.Path}, {"proto", e.Proto},
	} {
		b = appendField(b, f.name, f.value)
	}
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, e.Sent, 10)
	b = append(b, `,"duration_ms":`...)
	b = strconv.AppendFloat(b, float64(e.Took)/float64(time.Millisecond), 'f', 3, 64)
	for _, f := range []struct{ name, value string }{
		{"service", e.Service}, {"node", e.Node}, {"request_id", e.RequestID}, {"trace_id", e.TraceID}, {"user_agent", e.UserAgent},
	} {
		b = appendField(b, f.name, f.value)
	}
	return append(b, "}\n"...)
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendString(b, value)
}

const hex = "0123456789abcdef"

// appendString writes a JSON string (RFC 8259 section 7). Bytes that are no
// UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}

// appendCombined writes a line in Apache's combined log format. The referrer is
// left out: it is an address with a query.
func appendCombined(b []byte, e *Entry) []byte {
	host, _, err := net.SplitHostPort(e.Remote)
	if err != nil {
		host = "-" // a unix socket
	}
	b = appendQuoted(b, host)
	b = append(b, " - - ["...)
	b = e.Begun.AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
	b = append(b, `] "`...)
	b = appendQuoted(b, e.Method)
	b = append(b, ' ')
	b = appendQuoted(b, e.Path)
	b = append(b, ' ')
	b = append(b, e.Proto...)
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, e.Sent, 10)
	b = append(b, ` "-" "`...)
	if e.UserAgent == "" {
		b = append(b, '-')
	}
	b = appendQuoted(b, e.UserAgent)
	return append(b, "\"\n"...)
}

// appendQuoted escapes what would end a quoted string or a line, as Apache
// does.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}
