package harness

import (
	"testing"
	"time"
)

// Until calls a function again and again. It returns true as soon as the function returns true, and
// false after one minute. The limit delays only tests that fail, so it can be long enough for a
// slow machine.
func Until(holds func() bool) bool {
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// Await waits like Until. If the function does not return true within one minute, Await ends the
// test with an error. The parameter what describes the condition in the error.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !Until(holds) {
		t.Fatalf("a minute has passed without %s", what)
	}
}
