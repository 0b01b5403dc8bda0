package harness

import (
	"testing"
	"time"
)

// Until waits until holds returns true, and reports whether this happens within a minute. A test
// that passes continues as soon as holds returns true, also on a slow machine, so the limit only
// delays tests that fail.
func Until(holds func() bool) bool {
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// Await waits like Until. If holds does not return true in time, Await fails and ends the test.
// what describes the awaited condition, for the message.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !Until(holds) {
		t.Fatalf("a minute has passed without %s", what)
	}
}
