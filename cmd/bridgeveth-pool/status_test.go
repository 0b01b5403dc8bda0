package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// TestStatusWithoutEtcd calls STATUS and ADD while etcd refuses connections, does not answer, or cannot be
// reached at all. STATUS succeeds while addresses are left. Then the errors say since when etcd is
// silent, and how many addresses are left.
func TestStatusWithoutEtcd(t *testing.T) {
	t.Parallel()
	bin, port := programs(t), freePort()
	etcdtest.StartCluster(t, etcdtest.Options{Port: port})
	refuses, accepts, drops := port+2, port+3, port+4
	silent, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", accepts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	drop := `table inet t { chain input { type filter hook input priority 0; tcp dport %d drop; }; }`
	if out, err := exec.Command("nft", fmt.Sprintf(drop, drops)).CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("nft", "delete table inet t").CombinedOutput(); err != nil {
			t.Errorf("nft: %v: %s", err, out)
		}
	})
	for id, tt := range map[string]struct {
		port   int
		reason string
	}{
		"a": {refuses, "connection refused"}, "b": {accepts, "accepts connections, but it does not answer"}, "c": {drops, "i/o timeout"},
	} {
		m := newMachine(t, bin, id, port)
		if _, err := m.call("ADD", "first"); err != nil {
			t.Fatal(err)
		}
		t.Run(tt.reason, func(t *testing.T) {
			t.Parallel()
			m.t = t
			path := filepath.Join(m.conf, "net.conf")
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, []byte(strings.Replace(string(text), fmt.Sprint(":", port), fmt.Sprint(":", tt.port), 1)), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.call("STATUS", ""); err != nil {
				t.Errorf("STATUS while addresses are left: %v", err)
			}
			for i := 0; err == nil && i < 8; i++ {
				_, err = m.call("ADD", fmt.Sprint(i))
			}
			check := func(verb string, err error) {
				for _, want := range []string{
					"all addresses in the blocks of this host are leased, and the claim of another block failed: ", "etcd unreachable since 2",
					" (this host has addresses for 0 more containers): ", tt.reason,
				} {
					if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "no address is left") {
						t.Errorf("%s: %v, want %s", verb, err, want)
					}
				}
			}
			check("ADD", err)
			_, err = m.call("STATUS", "")
			check("STATUS", err)
		})
	}
}
