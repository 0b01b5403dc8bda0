package crio

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cri-o/ocicni/pkg/ocicni"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestStatus checks STATUS while the network's only address is free, while it is leased, and when
// it is free again. While it is leased, STATUS must fail. With the reference plugins, and with CNI
// versions before 1.1.0, STATUS always succeeds.
func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes []change
		tells   bool
	}{
		{"reference", []change{reference}, false},
		{"1.0.0", []change{version("1.0.0")}, false},
		{"as shipped", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t, slices.Concat(tt.changes, []change{only(1)})...)
				if err := n.StatusWithContext(t.Context()); err != nil {
					t.Fatalf("with a free address: %v", err)
				}
				p := n.pods(1)[0]
				n.startProcess(p)
				if err := n.StatusWithContext(t.Context()); tt.tells != (err != nil) || err != nil && !strings.Contains(err.Error(), "10.87.0.2") {
					t.Errorf("without one: %v", err)
				}
				if _, err := n.up(n.pod(2)); err == nil {
					t.Error("a second pod got an address")
				}
				n.down(p)
				if err := n.StatusWithContext(t.Context()); err != nil {
					t.Errorf("with a free address again: %v", err)
				}
			})
		})
	}
}

// TestGC checks the GC that CRI-O calls when it starts. Two pods have died while CRI-O did not run;
// libcni has a record of only one of them. Our plugins must free the leases of both pods. The
// reference plugins do not free the lease of the pod without a record. If no pod is left, CRI-O
// passes null as the list of valid attachments.
func TestGC(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes []change
		left    string // leases at the end
	}{
		{"reference", []change{reference}, "[3 10.87.0.4]"},
		{"as shipped", nil, "[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t, tt.changes...)
				before := setuptest.Dump(t)
				pods := n.pods(3)
				n.removeNamespace(pods[1])
				n.removeNamespace(pods[2])
				setuptest.Run(t, "rm", pods[1].NetNS, pods[2].NetNS, "/var/lib/cni/results/crio-"+pods[2].ID+"-eth0")
				dir := programs
				if tt.changes == nil {
					dir = harness.Recorder(t, programs)
				}
				n.start(dir)
				if err := n.GC(t.Context(), []*ocicni.PodNetwork{&pods[0]}); err != nil {
					t.Errorf("GC: %v", err)
				}
				if _, err := n.GetPodNetworkStatus(pods[0]); err != nil || !n.ping(pods[0], "10.87.0.1") {
					t.Errorf("the running pod: %v", err)
				}
				want := strings.Replace(tt.left, "[", "[1 10.87.0.2 ", 1)
				if got := fmt.Sprint(n.held()); got != strings.Replace(want, " ]", "]", 1) {
					t.Errorf("leases %s, want %s", got, want)
				}
				if err := n.GC(t.Context(), nil); err != nil {
					t.Errorf("GC without attachments: %v", err)
				}
				if got := fmt.Sprint(n.held()); got != tt.left {
					t.Errorf("after GC without attachments: leases %s, want %s", got, tt.left)
				}
				if tt.changes == nil {
					if got := harness.Received(t, "GC", "cni.dev/valid-attachments"); string(got) != "null" {
						t.Errorf("the list of valid attachments is %q, want null", got)
					}
					n.nothingLeft(before, "GC left traces")
				}
			})
		})
	}
}

// TestStartFull checks that CRI-O can start on a host where dead pods hold all addresses. CRI-O
// calls GC only after STATUS has succeeded once. So STATUS must not fail because of a pod without a
// process or without a link, even if the pod's namespace exists. Otherwise no pod would start until
// an administrator intervenes.
func TestStartFull(t *testing.T) {
	ready := func(_, _, ipam object) { ipam["readyWhenFull"] = true }
	unplug := func(n *node, p ocicni.PodNetwork) {
		n.startProcess(p)
		setuptest.Run(n.t, "ip", "link", "delete", setup.Attachment{Network: "crio", Container: p.ID, Interface: "eth0"}.Port())
	}
	for _, tt := range []struct {
		name    string
		lose    func(*node, ocicni.PodNetwork)
		changes []change
		left    string
	}{
		{"dead", (*node).removeNamespace, nil, "[]"},
		{"pinned, no process", func(*node, ocicni.PodNetwork) {}, nil, "[]"},
		{"no link", unplug, nil, "[]"},
		{"alive", (*node).startProcess, nil, "[1 10.87.0.2 2 10.87.0.3]"},
		{"alive, and ready when full", (*node).startProcess, []change{ready}, "[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t, append(tt.changes, only(2))...)
				for _, p := range n.pods(2) {
					tt.lose(n, p)
				}
				n.start(programs)
				if n.StatusWithContext(t.Context()) == nil {
					if err := n.GC(t.Context(), nil); err != nil {
						t.Error(err)
					}
				}
				if got := fmt.Sprint(n.held()); got != tt.left {
					t.Errorf("leases %s, want %s", got, tt.left)
				}
			})
		})
	}
}
