package main

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSkipAnswer(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nX: y\r\n\r\nabc"
	in := bufio.NewReader(strings.NewReader(good + good + "HTTP/1.1 503 No\r\n\r\n"))
	for range 2 {
		if err := skipAnswer(in); err != nil {
			t.Fatal(err)
		}
	}
	if err := skipAnswer(in); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a refusal: %v", err)
	}
	for _, bad := range []string{"", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", good[:len(good)-1]} {
		if err := skipAnswer(bufio.NewReader(strings.NewReader(bad))); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestBars(t *testing.T) {
	samples := func(cpu float64) []sample { return []sample{{cpu: cpu}, {cpu: 2 * cpu}, {cpu: 3 * cpu}} }
	f := &field{options: options{maxRatio: 1.3, maxPathBytes: 200}, subjects: []*subject{
		{one: samples(10), all: samples(10)}, {one: samples(13), all: samples(12)},
	}}
	f.pathBytes = map[string]float64{"proxy": 200, "rpc": -50}
	if err := f.overBar(); err != nil {
		t.Errorf("within the bars: %v", err)
	}
	f.subjects[1].all, f.pathBytes["rpc"] = samples(13.2), 201
	err := f.overBar()
	if err == nil || !strings.Contains(err.Error(), "all services: 1.32") || !strings.Contains(err.Error(), "rpc: 201") {
		t.Errorf("over the bars: %v", err)
	}
}

func TestMedian(t *testing.T) {
	left := []time.Duration{5, 1, 9}
	got, err := median(3, func() (time.Duration, error) {
		next := left[0]
		left = left[1:]
		return next, nil
	})
	if err != nil || got != 5 {
		t.Errorf("got %v, %v", got, err)
	}
}
