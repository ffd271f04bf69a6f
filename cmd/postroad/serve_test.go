package main

import "testing"

// What an administrator says of memory holds.
func TestBallast(t *testing.T) {
	for _, c := range []struct {
		collect, limit string
		want           int
	}{{"", "", ballastSize}, {"50", "", 0}, {"off", "", 0}, {"", "64MiB", 0}} {
		t.Setenv("GOGC", c.collect)
		t.Setenv("GOMEMLIMIT", c.limit)
		if got := len(ballast()); got != c.want {
			t.Errorf("GOGC=%s GOMEMLIMIT=%s: %d octets, want %d", c.collect, c.limit, got, c.want)
		}
	}
}
