// Package chaos makes random calls of the plugins while random faults hit the host, and checks that
// nothing is lost and nothing is left. TestChaos is a run on a host of its own (a network namespace
// and a mount namespace).
//
// Workers call ADD, DEL, CHECK, GC and STATUS at the same time by libcni, as runtimes do. They also
// kill and stop plugin processes, and delete namespaces, links and rules. The workers work in
// rounds. After each round, they pause and the function check reads the kernel and the store. At
// the end, the host must be as it was before the run.
//
// All choices of a worker come from the seed and from the results of its earlier calls. The kernel
// decides in which order the processes run, so the same seed gives a similar run, not the same run.
//
// worker_test.go has the operations, fault_test.go the faults, and check_test.go the checks.
package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// programs is the folder with the executable files of bvctl and the plugins.
var programs string

func TestMain(m *testing.M) { harness.Main(m, &programs, "bridgeveth", "bvctl") }

// TestChaos makes a run. The environment variables CHAOS_SEED and CHAOS_OPERATIONS set the seed and
// the number of operations. With CHAOS_MINUTES, the run makes further operations until it has taken
// this number of minutes. If the run finds nothing wrong, TestChaos writes its result as Markdown
// to the file that CHAOS_REPORT names. Otherwise TestChaos repeats the run with fewer and fewer steps.
func TestChaos(t *testing.T) {
	seed, err := number("CHAOS_SEED", 1)
	operations, opErr := number("CHAOS_OPERATIONS", 400)
	minutes, minErr := number("CHAOS_MINUTES", 0)
	if err := errors.Join(err, opErr, minErr); err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d, %d operations, at least %d minutes", seed, operations, minutes)
	inHost, failed := false, ""
	if os.Getenv(failureVar) == "" {
		failed = filepath.Join(t.TempDir(), "failure")
		t.Setenv(failureVar, failed)
	}
	setuptest.InHost(t, func() {
		inHost = true
		r := newRun(t, seed, operations, minutes)
		if r.rounds() && r.end() {
			r.report(os.Getenv("CHAOS_REPORT"))
		}
	})
	if t.Failed() && !inHost && failed != "" {
		explain(t, seed, failed)
	}
}

// number returns the value of an environment variable, or the parameter usual if the variable is
// empty.
func number(variable string, usual uint64) (uint64, error) {
	value := os.Getenv(variable)
	if value == "" {
		return usual, nil
	}
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%s=%s is not a number from 0 to 2⁶³-1; give digits, such as 1", variable, value)
	}
	return n, nil
}
