package main

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBars(t *testing.T) {
	rows := []row{
		{"time", 300, 300, "ms"},
		{"memory", 40.1, 40, "MB"},
		{"size", 1000, 0, "MB"},
	}
	err := overBar(rows)
	if err == nil || err.Error() != "memory: 40.1 MB is over the bar of 40 MB" {
		t.Errorf("got %v", err)
	}
	var out strings.Builder
	if err := printTable(&out, rows); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	if want := "measured bar time 300.0 ms 300 ms memory 40.1 MB 40 MB size 1000.0 MB -"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
