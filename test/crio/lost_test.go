package crio

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-o/ocicni/pkg/ocicni"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestTearDown checks that CRI-O can remove a pod whose network namespace is gone or unknown. DEL
// must not fail in these cases: CRI-O would only log the error and not call DEL again, so the pod's
// rules and leases would stay forever.
func TestTearDown(t *testing.T) {
	plainFile := func(n *node, p *ocicni.PodNetwork) { n.removeNamespace(*p) }
	gone := func(n *node, p *ocicni.PodNetwork) {
		n.removeNamespace(*p)
		if err := os.Remove(p.NetNS); err != nil {
			n.t.Fatal(err)
		}
	}
	unknown := func(_ *node, p *ocicni.PodNetwork) { p.NetNS = "" }
	for _, tt := range []struct {
		name    string
		lose    func(*node, *ocicni.PodNetwork)
		changes []change
		err     string
		held    string
		rules   bool // the masquerade rules stay
	}{
		{"reference, gone", gone, []change{reference}, "", "[]", true},
		{"reference, unknown", unknown, []change{reference}, "", "[]", true},
		{"reference, a plain file", plainFile, []change{reference}, "unknown FS magic", "[1 10.87.0.2]", true},
		{"gone", gone, nil, "", "[]", false},
		{"unknown", unknown, nil, "", "[]", false},
		{"a plain file", plainFile, nil, "", "[]", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t, tt.changes...)
				before := setuptest.Dump(t)
				p := n.pods(1)[0]
				tt.lose(n, &p)
				err := n.TearDownPod(p)
				if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("tear down: %v, want %q", err, tt.err)
				}
				if got := fmt.Sprint(n.held()); got != tt.held {
					t.Errorf("leases %s, want %s", got, tt.held)
				}
				if got := strings.Contains(setuptest.Run(t, "nft", "list", "ruleset"), "10.87."); got != tt.rules {
					t.Errorf("its rules are left: %v, want %v", got, tt.rules)
				}
				if tt.changes == nil {
					n.nothingLeft(before, "the end of a pod left traces")
				}
			})
		})
	}
}

// TestNoNamespace checks that ADD fails for a pod without a network namespace, and leaves nothing.
func TestNoNamespace(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		before := setuptest.Dump(t)
		for _, path := range []string{"", "/run/netns/none", file} {
			p := ocicni.PodNetwork{Name: "web", Namespace: "shop", ID: "1", UID: "1", NetNS: path}
			if _, err := n.SetUpPod(p); err == nil {
				t.Errorf("the pod in namespace %q has started", path)
			}
			n.down(p) // as CRI-O does after a failure
			n.nothingLeft(before, "a pod in \""+path+"\" left traces")
		}
	})
}

// TestReboot checks that pods start after a reboot, although two old pods have leased all addresses
// of the network. The reboot deletes the namespaces and links, but not libcni's cache. In two of
// the cases, it also deletes the files in /run. CRI-O starts the pods in new sandboxes, and removes
// the old sandboxes later.
func TestReboot(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes []change
		keepRun bool
		err     string
	}{
		{"reference", []change{reference}, false, "no IP addresses available in range set"},
		{"with /run", nil, true, ""},
		{"without /run", nil, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t, append(tt.changes, only(2))...)
				before := setuptest.Dump(t)
				old := n.pods(2)
				n.reboot(old, tt.keepRun)
				setuptest.DropForward(t, "iptables", "ip6tables")
				if err := n.Status(); err != nil {
					t.Errorf("status: %v", err)
				}
				var anew []ocicni.PodNetwork
				for i := range old {
					p := n.pod(3 + i)
					_, err := n.up(p)
					if tt.err != "" {
						if err == nil || !strings.Contains(err.Error(), tt.err) {
							t.Errorf("%v, want %q", err, tt.err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					anew = append(anew, p)
				}
				n.down(old...)
				if err := n.GC(t.Context(), []*ocicni.PodNetwork{&anew[0], &anew[1]}); err != nil {
					t.Errorf("GC: %v", err)
				}
				for _, p := range anew {
					if _, err := n.GetPodNetworkStatus(p); err != nil || !n.ping(p, "10.87.0.1") {
						t.Errorf("%s, after the end of the old ones: %v", p.Name, err)
					}
				}
				n.down(anew...)
				n.nothingLeft(before, "the pods left traces")
			})
		})
	}
}

// TestRebootSameSandbox checks that a pod can start again in the same sandbox after a reboot.
func TestRebootSameSandbox(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t, only(1))
		p := n.pods(1)
		n.reboot(p, true)
		again := n.pods(1)
		if !n.ping(again[0], "10.87.0.1") {
			t.Error("no answer from the gateway")
		}
		n.down(again...)
	})
}

// reboot removes everything from the host that a reboot removes, and starts the library ocicni
// again. If the parameter keepRun is true, the files in /run stay, including those on which
// namespaces were mounted.
func (n *node) reboot(pods []ocicni.PodNetwork, keepRun bool) {
	n.t.Helper()
	for _, p := range pods {
		n.removeNamespace(p)
	}
	setuptest.Run(n.t, "sh", "-ec", `
		for link in $(ip -o link | sed -n 's/^[0-9]*: \([^:@]*\).*/\1/p'); do
			[ $link = lo ] || ip link delete $link || true # it went with its peer
		done
		nft flush ruleset`)
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		setuptest.SetSysctl(n.t, key, "0")
	}
	id := filepath.Join(n.t.TempDir(), "boot_id")
	if err := os.WriteFile(id, []byte("00000000-0000-4000-8000-000000000002\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
	setuptest.Run(n.t, "mount", "--bind", id, "/proc/sys/kernel/random/boot_id")
	if !keepRun {
		setuptest.Run(n.t, "mount", "-t", "tmpfs", "tmpfs", "/run")
	}
	n.start(programs)
}
