package harness

import (
	"testing"
	"time"
)

// Until waits until a condition holds, and reports whether it does within a minute. The limit ends
// only tests that fail: on a slow machine, a test that passes takes longer.
func Until(holds func() bool) bool {
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// Await waits like Until, and ends the test if the condition does not hold in time. what names the
// condition.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !Until(holds) {
		t.Fatalf("a minute has passed without %s", what)
	}
}
