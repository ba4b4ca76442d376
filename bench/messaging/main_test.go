package main

import (
	"strings"
	"testing"
)

func TestBars(t *testing.T) {
	rows := []row{
		{"rate", 10, 10, "1/s", true}, {"slow rate", 9, 10, "1/s", true},
		{"time", 10, 10, "ms", false}, {"long time", 11, 10, "ms", false}, {"no bar", 1, 0, "", true},
	}
	err := missed(rows)
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "slow rate") || !strings.Contains(err.Error(), "long time") {
		t.Errorf("missed: %v", err)
	}
	var out strings.Builder
	if err := printTable(&out, rows); err != nil || strings.Count(out.String(), "NOT MET") != 2 {
		t.Errorf("%v\n%s", err, out.String())
	}
}
