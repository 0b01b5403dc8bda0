package k8s

import (
	"testing"

	"github.com/bridgeveth/bridgeveth/test/harness"
)

// until waits up to five minutes for a condition, and reports whether the condition holds. On a
// busy machine, a node takes more than a minute to boot: its kubelet first ends with an error and
// is started again.
func until(holds func() bool) bool {
	for range 5 {
		if harness.Until(holds) {
			return true
		}
	}
	return false
}

// await waits like until. If the condition does not hold in time, await ends the test with an error.
// The parameter what names the condition in this error.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !until(holds) {
		t.Fatalf("five minutes have passed without %s", what)
	}
}
