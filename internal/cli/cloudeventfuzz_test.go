package cli

import (
	"strings"
	"testing"
)

// FuzzCloudEvent prints what anybody may have published: always one line, which
// holds nothing that a terminal would obey.
func FuzzCloudEvent(f *testing.F) {
	f.Add("application/cloudevents+json", "", []byte(`{"specversion":"1.0","type":"a","source":"b","id":"c","data":{"x":1}}`))
	f.Add("application/cloudevents+json", "", []byte(`{"specversion":"1.0","data_base64":"G10="}`))
	f.Add("text/plain", "1.0", []byte("\x1b]0;title\x07\n"))
	f.Add("\r\n", "1.\x1b[2J", []byte{0xff})
	f.Fuzz(func(t *testing.T, kind, version string, body []byte) {
		line, ok := cloudEventLine(received{Header: map[string]string{
			"Content-Type": kind, "Ce-Specversion": version, "ce-type": version, "CE-Source": kind, "ce-id": "\x1b[1m",
		}, Body: body})
		head, _, _ := strings.Cut(line, ": ")
		if ok && !printable(head) {
			t.Fatalf("%q", line)
		}
		if strings.ContainsAny(line, "\n\r\x1b\x00") {
			t.Fatalf("%q", line)
		}
	})
}
