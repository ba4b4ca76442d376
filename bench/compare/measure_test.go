package main

import (
	"os"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const out = `Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   890.18us  203.02us   4.02ms   81.50%
    Req/Sec    72.02k     2.60k   76.63k    70.00%
  Latency Distribution
     50%  814.00us
     75%    0.98ms
     90%    1.13ms
     99%    1.75ms
  143288 requests in 2.00s, 23.64MB read
Requests/sec:  71644.01
Transfer/sec:     11.82MB
`
	s, requests, err := parse(out)
	if err != nil || requests != 143288 || s.rate != 71644.01 || s.p50 != 814*time.Microsecond || s.p99 != 1750*time.Microsecond {
		t.Errorf("got %+v, %v requests, %v", s, requests, err)
	}
	if _, _, err := parse("unable to connect"); err == nil {
		t.Error("no result passed for one")
	}
}

func TestRatioIsTakenWithinARound(t *testing.T) {
	of := func(s sample) float64 { return s.rate }
	// The machine was half as fast in the second round.
	base := []sample{{rate: 100}, {rate: 50}, {rate: 100}}
	own := []sample{{rate: 80}, {rate: 40}, {rate: 90}}
	if got := ratio(own, base, of); got != 0.8 {
		t.Errorf("got %v", got)
	}
	if got := middle([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("the middle of four is %v", got)
	}
}

func TestOwnAccounting(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("the measurements read /proc, which this system does not have")
	}
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for now := before; now < before+50*time.Millisecond; { // busy until it shows
		if now, err = cpuTime(os.Getpid()); err != nil || time.Now().After(deadline) {
			t.Fatal(now, err)
		}
	}
	if mb, err := resident(os.Getpid()); err != nil || mb < 1 || mb > 10_000 {
		t.Errorf("%v MB, %v", mb, err)
	}
}
