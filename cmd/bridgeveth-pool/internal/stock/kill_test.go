package stock

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/internal/ptrace"
)

// fillVar is an environment variable. If it is set, the test's executable file calls fillAlone with the
// store in this folder.
const fillVar = "POOL_TEST_FILL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fillVar); dir != "" {
		if err := fillAlone(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	etcdtest.Main(m)
}

// fillAlone fills the stock of host a, as if the present empty blocks had been empty for returnAfter. It also
// claims the block of an address.
func fillAlone(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		return err
	}
	s := stockIn(dir, c, "/killed", "a")
	if _, err := s.look(); err != nil {
		return err
	}
	for b := range s.emptySince {
		s.emptySince[b] -= returnAfter
	}
	return s.Fill(ctx, netip.MustParseAddr("10.1.0.5"))
}

// TestFillKilled kills a process that claims a block and returns others, at different system calls. The
// store must have no block that the host does not own. The next Fill must find out which blocks the host
// has.
func TestFillKilled(t *testing.T) {
	c := etcdtest.StartCluster(t, etcdtest.Options{}).Client()
	dir := filepath.Join(t.TempDir(), "store")
	s := stockIn(dir, c, "/killed", "a")
	env := append(os.Environ(), fillVar+"="+dir)
	fillOnce := func(before func(ptrace.Call) bool) {
		t.Helper()
		own := owned(t, c, s)
		for _, b := range strings.Fields(subnets(t, s)) {
			if !slices.Contains(strings.Fields(own), b) {
				t.Errorf("the store has %s, and the host owns %q", b, own)
			}
		}
		if before != nil {
			if _, err := ptrace.Run([]string{"/proc/self/exe"}, env, []*os.File{os.Stdin, os.Stdout, nil}, before); err != nil {
				t.Fatal(err)
			}
			return
		}
		run := exec.Command("/proc/self/exe")
		run.Env = env
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	ptrace.KillEach(t, 22, ptrace.Killing{
		Prepare: func() {
			if _, err := c.Delete(etcdtest.Deadline(t), s.Member.Prefix, clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			s.Member.HeardInBoot = false
			threeEmpty(t, s)
		},
		Run: fillOnce, Cure: fillOnce,
		Check: func(when string) {
			fillOnce(nil) // a block that only etcd knew before Cure is without a lease since then
			own, have := owned(t, c, s), strings.Join(sorted(subnets(t, s)), " ")
			if own != have || len(strings.Fields(own)) != 2 {
				t.Errorf("%s: etcd has %q, the store %q, want the block with the lease and one more", when, own, have)
			}
		},
	})
}
