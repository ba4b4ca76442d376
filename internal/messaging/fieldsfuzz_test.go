package messaging

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
)

// FuzzPushed posts a message with any header, topic and Id, as an engine may
// have it of anybody: what goes out is one request with the message's body,
// and it says of topic, attempt and Id what the sidecar says.
func FuzzPushed(f *testing.F) {
	f.Add("Content-Length", "7", "t", "1", []byte("body"))
	f.Add("transfer-encoding", "chunked", "t", "1", []byte("0\r\n\r\nGET / HTTP/1.1\r\n\r\n"))
	f.Add("X\r\nY", "a\r\n\r\nb", "a\r\nb", "1\n", []byte{})
	f.Add("micro_topic", "x", "ä", "1", []byte("x"))
	f.Add("Host", "evil", "t\x00", "1", []byte("x"))
	f.Fuzz(func(t *testing.T, name, value, topic, id string, body []byte) {
		req, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:1/events", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		setHeader(req.Header, &broker.Held{Stored: broker.Stored{ID: "42", Delivery: broker.Delivery{
			Topic: topic, Message: broker.Message{Header: map[string]string{name: value, idField: id}, Body: body},
		}}, Attempt: 3})
		var sent bytes.Buffer
		if err := req.Write(&sent); err != nil {
			t.Fatalf("%q: %q: %v", name, value, err)
		}
		rest := bufio.NewReader(&sent)
		got, err := http.ReadRequest(rest)
		if err != nil {
			t.Fatalf("%q: %q: %v", name, value, err)
		}
		read, err := io.ReadAll(got.Body)
		if err != nil || !bytes.Equal(read, body) || got.Host != "127.0.0.1:1" || got.RequestURI != "/events" {
			t.Fatalf("%q: %q: the application reads %q of %s at %s, %v", name, value, read, got.RequestURI, got.Host, err)
		}
		if n, _ := rest.Read(make([]byte, 1)); n > 0 {
			t.Fatalf("%q: %q: something follows the request", name, value)
		}
		for field, want := range map[string]string{attemptField: "3", topicField: "", idField: ""} {
			said := ""
			for k, values := range got.Header {
				if strings.EqualFold(strings.ReplaceAll(k, "_", "-"), field) {
					said += strings.Join(values, "|") + "|"
				}
			}
			if strings.Count(said, "|") != 1 && !strings.Contains(topic+id, "|") || want != "" && said != want+"|" {
				t.Fatalf("%q: %q: %s is %q", name, value, field, said)
			}
		}
	})
}

// FuzzLetter reads dead letters that anybody may have written.
func FuzzLetter(f *testing.F) {
	f.Add(deadTopicField, "t", "7", "x")
	f.Add(deadAttemptsField, "-99999999999999999999", "\xff", "")
	f.Add(deadFirstField, "yesterday", "\r\n", "x")
	f.Fuzz(func(t *testing.T, name, value, id, body string) {
		l := letter(broker.Stored{ID: id, At: time.Unix(0, 0), Delivery: broker.Delivery{
			Topic: "t.dead", Message: broker.Message{Header: map[string]string{name: value}, Body: []byte(body)},
		}})
		if l.ID != id || string(l.Body) != body || l.Attempts < 0 {
			t.Fatalf("read as %+v", l)
		}
		for k := range l.Header {
			if k != name {
				t.Fatalf("a field %q came from nowhere", k)
			}
		}
	})
}
