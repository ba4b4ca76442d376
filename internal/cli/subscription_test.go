package cli

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/messaging"
	"github.com/micro/sidecar/internal/sidecar"
)

func TestParseSubscription(t *testing.T) {
	standard := messaging.Push{Topic: "orders", Queue: "billing", Concurrency: 4, AckWait: 30 * time.Second, MaxDeliver: 5}
	with := func(change func(*sidecar.Subscription)) sidecar.Subscription {
		s := sidecar.Subscription{Push: standard, Path: "/events"}
		change(&s)
		return s
	}
	for text, want := range map[string]sidecar.Subscription{
		"topic=orders,queue=billing,path=/events": with(func(*sidecar.Subscription) {}),
		"path=/events?a=b, queue=billing, topic=orders": with(func(s *sidecar.Subscription) {
			s.Path = "/events?a=b"
		}),
		`topic=or\,d\\ers,queue=billing,path=/events`: with(func(s *sidecar.Subscription) { s.Topic = `or,d\ers` }),
		"topic=orders,queue=billing,path=/events,concurrency=9,ordered=true,ack_wait=2m,max_deliver=0,dead_letter=graves": with(func(s *sidecar.Subscription) {
			s.Concurrency, s.Ordered, s.AckWait, s.MaxDeliver, s.DeadLetter = 9, true, 2*time.Minute, 0, "graves"
		}),
		"topic=orders,queue=billing,url=http://127.0.0.1:9000/e": with(func(s *sidecar.Subscription) {
			s.Path, s.URL = "", "http://127.0.0.1:9000/e"
		}),
		"topic=orders,queue=billing,url=http://unix:/run/a.sock:/e": with(func(s *sidecar.Subscription) {
			s.Path, s.URL, s.Socket = "", "http://localhost/e", "/run/a.sock"
		}),
	} {
		got, err := parseSubscription(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, %v\nwant\n%+v", text, got, err, want)
		}
	}
}

func TestSubscriptionMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"": "KEY=VALUE", "orders": "KEY=VALUE", "topic=": "KEY=VALUE",
		"topic=a,queue=b,path=/c,color=red":          "unknown key",
		"topic=a,topic=b,queue=b,path=/c":            "topic is given twice",
		"topic=a,queue=b,path=c":                     "a path that begins with /",
		"topic=a,queue=b,path=/c,url=http://a/":      "path=/PATH of the application, or url=URL",
		"topic=a,queue=b,url=ftp://a/":               "an http or https URL",
		"topic=a,queue=b,path=/c,concurrency=0":      "concurrency",
		"topic=a,queue=b,path=/c,ordered=yes please": "ordered",
		"topic=a,queue=b,path=/c,ack_wait=1ms":       "ack_wait",
		"topic=a,queue=b,path=/c,max_deliver=-1":     "max_deliver",
		"topic=a,queue=b,path=/c,dead_letter=a":      "the topic itself",
		"topic=a,path=/c":                            "queue=QUEUE",
	} {
		if _, err := parseSubscription(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", text, err, want)
		}
	}
	if _, err := parseSubscriptions([]string{"topic=a,queue=b,path=/c", "topic=a,queue=b,path=/d"}); err == nil {
		t.Error("a queue that is subscribed to twice: no error")
	}
}

// The configuration file may spell a subscription as a mapping.
func TestSubscriptionsInFile(t *testing.T) {
	file := configFile(t, `
server_name: app
server_address: 127.0.0.1:9090
subscribe:
  - {topic: "a,b", queue: q, path: /a, ordered: true}
  - topic=b,queue=q,url=http://127.0.0.1:9/b
`)
	got := config(t, nil, file).Sidecar.Subscriptions
	if len(got) != 2 || got[0].Topic != "a,b" || !got[0].Ordered || got[1].URL != "http://127.0.0.1:9/b" {
		t.Errorf("%+v", got)
	}
}

func FuzzSubscription(f *testing.F) {
	f.Add("topic=orders,queue=billing,path=/events,ordered=true")
	f.Add(`topic=a\,b\\,queue=q,url=http://unix:/run/a.sock:/e,ack_wait=5s`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSubscription(text)
		if err == nil && (s.Topic == "" || s.Queue == "" || s.Path == "" && s.URL == "" || s.AckWait <= 0 || s.Concurrency < 1) {
			t.Fatalf("%q: %+v", text, s)
		}
		parts := splitEscaped(text)
		if back := splitEscaped(joinEscaped(append([]string{}, parts...))); !reflect.DeepEqual(back, parts) {
			t.Fatalf("%q: %q became %q", text, parts, back)
		}
	})
}

func TestCloudEventLine(t *testing.T) {
	binary := received{Header: map[string]string{"Ce-Specversion": "1.0", "ce-type": "com.example.order", "Ce-Source": "/shop", "Ce-Id": "7"}, Body: []byte(`{"a":1}`)}
	structured := received{
		Header: map[string]string{"Content-Type": "application/cloudevents+json; charset=utf-8"},
		Body:   []byte(`{"specversion":"1.0","type":"com.example.order","source":"/shop","id":"7","data": {"a": 1}}`),
	}
	for _, m := range []received{binary, structured} {
		if got, want := messageLine(m), `com.example.order /shop 7: {"a":1}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	plain := received{Header: map[string]string{"Content-Type": "application/cloudevents+json"}, Body: []byte("no event")}
	if got := messageLine(plain); got != "no event" {
		t.Errorf("%s", got)
	}
}
