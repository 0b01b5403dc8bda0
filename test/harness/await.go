package harness

import (
	"testing"
	"time"
)

// Until waits until a condition holds, and reports whether it does within a minute. The limit
// matters only for tests that fail: a test that passes continues as soon as the condition holds,
// also on a slow machine.
func Until(holds func() bool) bool {
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// Await waits like Until, and fails and ends the test if the condition does not hold in time.
// what names the condition.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !Until(holds) {
		t.Fatalf("a minute has passed without %s", what)
	}
}
