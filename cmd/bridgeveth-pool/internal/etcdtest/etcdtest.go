// Package etcdtest starts etcd for tests.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// inNamespace is set in the test process that runs in its own network namespace.
const inNamespace = "POOL_TEST_IN_NAMESPACE"

// Main runs the tests of a package in a network namespace of their own, so that etcd is not reachable from
// outside and cannot meet another etcd. Their mounts end with the tests.
func Main(m *testing.M) {
	if os.Getenv(inNamespace) == "" {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.Env = append(os.Environ(), inNamespace+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		err := c.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, "run the tests in a network namespace (root is required):", err)
			os.Exit(1)
		}
		os.Exit(c.ProcessState.ExitCode())
	}
	if err := setLoopbackUp(); err != nil {
		fmt.Fprintln(os.Stderr, "set the interface lo up:", err)
		os.Exit(1)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "make mounts private:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func setLoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// programs returns the etcd programs to test: the one of the distribution, and the one that
// hack/etcd.sh has built, if ETCD_BIN names it.
func programs() []string {
	list := []string{"etcd"}
	if built := os.Getenv("ETCD_BIN"); built != "" {
		list = append(list, built)
	}
	return list
}

// Each runs a test with a client of each etcd program.
func Each(t *testing.T, test func(t *testing.T, c *clientv3.Client)) {
	t.Helper()
	EachProgram(t, func(t *testing.T, program string, port int) {
		test(t, StartCluster(t, Options{Program: program, Port: port}).Client())
	})
}

// EachProgram runs a test with the file of each etcd program, and with a port that is the first of a hundred free ones.
func EachProgram(t *testing.T, test func(t *testing.T, program string, port int)) {
	t.Helper()
	for i, program := range programs() {
		text, err := exec.Command(program, "--version").Output()
		if err != nil {
			t.Fatalf("%s: %v; install the package etcd-server", program, err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		t.Run(first, func(t *testing.T) { test(t, program, 2379+100*i) })
	}
}

// Deadline returns a context that ends in a minute or with the test.
func Deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
