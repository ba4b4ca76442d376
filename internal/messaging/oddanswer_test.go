package messaging

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/micro/sidecar/internal/testserver"
)

// Applications answer in ways that no library of theirs would: a message is
// acknowledged when the final answer says so, a dead letter when that says so,
// and comes again in every other case, at once or when the connection is gone.
func TestOddAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	k := keep(t)
	for _, test := range []struct {
		name, first string // what the first request gets
		early       bool   // before its body was read
		closes      bool   // and then the connection is closed
		want        int    // how many requests
		letters     int
	}{
		{name: "early hints", first: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok, want: 1},
		{name: "continue", first: "HTTP/1.1 100 Continue\r\n\r\n" + ok, want: 1},
		{name: "a redirect", first: "HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", want: 2},
		{name: "an answer before the body", first: ok, early: true, want: 1},
		{name: "a refusal before the body", first: "HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n", early: true, want: 1, letters: 1},
		{name: "an end without an answer", closes: true, want: 2},
		{name: "half a head", first: "HTTP/1.1 200 OK\r\nContent-Le", closes: true, want: 2},
		{name: "half a body", first: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", closes: true, want: 2},
		{name: "a body that does not end", first: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", want: 1},
		{name: "a body without measure", first: "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + strings.Repeat("x", 2*maxAnswer), want: 1},
		{name: "no HTTP", first: "SSH-2.0-OpenSSH_9.2\r\n", closes: true, want: 2},
		{name: "a verdict that is none", first: "HTTP/1.1 200 OK\r\nMicro-Ack: perhaps\r\nContent-Length: 0\r\n\r\n", want: 1},
		{name: "a refusal to try again for ages", first: "HTTP/1.1 503 No\r\nRetry-After: never\r\nContent-Length: 0\r\n\r\n", want: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			topic := strings.ReplaceAll(test.name, " ", "-")
			l, err := testserver.Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var requests atomic.Int32
			serve := func(conn net.Conn) {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					first := requests.Add(1) == 1
					if !first || !test.early {
						_, _ = io.Copy(io.Discard, r.Body)
					}
					if !first {
						_, _ = io.WriteString(conn, ok)
						continue
					}
					_, _ = io.WriteString(conn, test.first)
					if test.closes {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
				}
			}
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go serve(conn)
				}
			}()
			pusher, err := k.StartPush(t.Context(), Push{Topic: topic, Queue: "q", Concurrency: 1, URL: fmt.Sprintf("http://%s/e", l.Addr())}, PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = pusher.Stop(t.Context()) }()
			k.post(topic, strings.Repeat("x", 1<<20))
			k.eventually("it is settled", func() bool {
				i := k.info(topic, "q")
				return int(requests.Load()) == test.want && i.Lag+i.Held == 0
			})
			letters, err := (&Admin{Broker: k.broker, Timeout: long}).DeadLetters(t.Context(), topic, "", 10)
			if err != nil || len(letters) != test.letters {
				t.Errorf("%d dead letters, %v; want %d", len(letters), err, test.letters)
			}
		})
	}
}
