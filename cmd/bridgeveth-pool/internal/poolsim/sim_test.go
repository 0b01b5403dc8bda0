// Package poolsim simulates the hosts of one pool of addresses. TestSimulation runs them against a real
// etcd of three members, while random faults hit the hosts and the members.
//
// Each host has a store of its own (pkg/ipam), and claims blocks by the code of bridgeveth-pool
// (package stock). All hosts run in one process. Each has a goroutine for its runtime, which makes ADD
// and DEL, and another one for the service bridgeveth-pool.
//
// All choices of a host come from the seed. The kernel and etcd decide in which order the hosts run, so
// the same seed gives a similar run, not the same run.
//
// host_test.go has the hosts, link_test.go their way to etcd, fault_test.go the faults, check_test.go and
// ledger_test.go the checks, and report_test.go the result.
package poolsim

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// mountsVar is set in the process that runs in a mount namespace of its own.
const mountsVar = "POOL_SIM_MOUNTS"

func TestMain(m *testing.M) {
	if os.Getenv(laterVar) != "" {
		later()
		return
	}
	if os.Getenv(mountsVar) == "" {
		runtime.LockOSThread() // etcdtest.Main starts the tests from this thread
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err = errors.Join(err, os.Setenv(mountsVar, "1")); err != nil {
			fmt.Fprintln(os.Stderr, "run the tests in a mount namespace (root is required):", err)
			os.Exit(1)
		}
	}
	etcdtest.Main(m)
}

// options are the size of a run.
type options struct {
	seed      uint64
	hosts     int
	addresses int
	seconds   int // how long the hosts take to hand out the addresses, if the machine is fast enough
}

// unit is the unit of the times in a run. In a run of 200 seconds it is a second, and the times are
// those of the service. In a shorter run they are shorter.
func (o options) unit() time.Duration { return time.Duration(o.seconds) * time.Second / 200 }

// TestSimulation makes a run. The environment variables POOL_SIM_SEED, POOL_SIM_HOSTS,
// POOL_SIM_ADDRESSES and POOL_SIM_SECONDS set its options. If the run finds nothing wrong,
// TestSimulation writes its result as Markdown to the file that POOL_SIM_REPORT names.
func TestSimulation(t *testing.T) {
	var o options
	seed, hosts, addresses := number(t, "POOL_SIM_SEED", 1), number(t, "POOL_SIM_HOSTS", 30), number(t, "POOL_SIM_ADDRESSES", 3000)
	o = options{uint64(seed), hosts, addresses, number(t, "POOL_SIM_SECONDS", 4)}
	t.Logf("seed %d, %d hosts, %d addresses, %d seconds", o.seed, o.hosts, o.addresses, o.seconds)
	r := newRun(t, o)
	r.start()
	r.rush()
	r.traffic()
	r.settle()
	r.check()
	if len(r.problems) > 0 {
		t.Errorf("%d problems; to run again: make pool-sim SEED=%d HOSTS=%d ADDRESSES=%d SECONDS=%d", len(r.problems), o.seed, o.hosts, o.addresses, o.seconds)
		for _, p := range r.problems[:min(20, len(r.problems))] {
			t.Error(p)
		}
		return
	}
	r.report(os.Getenv("POOL_SIM_REPORT"))
}

// number returns the value of an environment variable, or the parameter usual if the variable is empty.
func number(t *testing.T, variable string, usual int) int {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		return usual
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is not a number above 0; give digits, such as 1", variable, value)
	}
	return n
}
