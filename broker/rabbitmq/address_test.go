package rabbitmq_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/rabbitmq"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
)

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:5672":              "",
		"amqp://u:p@a/vhost":          "",
		"amqp://a/%2Fx":               "",
		"amqp://a/":                   "",
		"amqps://a,b:1?insecure=true": "",
		"amqp://a?exchange=mine":      "",
		"amqp://a/x/y":                "virtual host",
		"amqp://a?exchange=amq.topic": "exchange",
		"amqp://a?exchnge=x":          "exchange",
		"amqp://a?queue_type=quorum":  "",
		"amqp://a?queue_type=stream":  "auto, quorum or classic",
		"nats://a":                    "amqp or amqps",
		"amqps://a?ca_file=/nosuch":   "ca_file",
	} {
		u, err := engineurl.Parse("rabbitmq", text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		err = rabbitmq.CheckAddress(u)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if err := rabbitmq.CheckAddress((*url.URL)(nil)); err != nil {
		t.Error(err)
	}
}

// Over TLS, by a certificate that is verified, in an exchange that somebody
// has declared in another way.
func TestTLS(t *testing.T) {
	server := testserver.RabbitMQ(t)
	conn, err := amqp.Dial("amqp://guest:guest@" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.ExchangeDeclare("theirs", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	authority := testserver.NewAuthority(t)
	addr := terminateTLS(t, authority, server.Addr)
	for text, works := range map[string]bool{
		"amqps://" + addr + "?exchange=theirs&ca_file=" + authority.File: true,
		"amqps://" + addr:                             false, // the system does not know the authority
		"amqp://guest:wrong@" + server.Addr:           false,
		"amqp://guest:guest@" + server.Addr + "/nope": false,
		"amqp://127.0.0.1:1," + server.Addr:           true, // the second one is there
	} {
		u, err := engineurl.Parse("rabbitmq", text)
		if err != nil {
			t.Fatal(err)
		}
		b, err := rabbitmq.Open(u, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = b.Publish(within(t), "t", broker.Message{})
		if (err == nil) != works {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "wrong") {
			t.Errorf("the error shows the password: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// terminateTLS speaks TLS before a server that does not.
func terminateTLS(t *testing.T, authority *testserver.Authority, server string) (addr string) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(authority.Issue(time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer client.Close()
				plain, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer plain.Close()
				all.Go(func() {
					_, _ = io.Copy(plain, client)
					_ = plain.Close()
				})
				_, _ = io.Copy(client, plain)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}
