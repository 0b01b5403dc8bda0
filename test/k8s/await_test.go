package k8s

import (
	"testing"

	"github.com/bridgeveth/bridgeveth/test/harness"
)

// until calls the function holds again and again for up to five minutes, and reports whether it has
// returned true. On a busy machine, a node takes more than a minute to boot: its kubelet first ends
// with an error and is started again.
func until(holds func() bool) bool {
	for range 5 {
		if harness.Until(holds) {
			return true
		}
	}
	return false
}

// await calls the function holds in the same way. If holds does not return true in time, await ends
// the test with an error. The parameter what describes the condition in this error.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !until(holds) {
		t.Fatalf("five minutes have passed without %s", what)
	}
}
