package cnitool

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDoctorThrough checks the doctor on transit packets, which enter and leave the node by its
// uplink. The packets go to 192.0.2.9, and a rule redirects them to a pod on another node, as
// kube-proxy does for a NodePort. The doctor must name the chain that drops these packets. The
// command that the doctor prints must fix the fault.
func TestDoctorThrough(t *testing.T) {
	t.Parallel()
	const proxy = "nft add table ip kube; nft add chain ip kube there '{ type nat hook prerouting priority dstnat; }'; nft add rule ip kube there ip daddr 192.0.2.9 dnat to 10.244.2.2; " +
		"nft add chain ip kube back '{ type nat hook postrouting priority srcnat; }'; nft add rule ip kube back ip daddr 10.244.2.2 masquerade"
	for _, tt := range []struct{ name, spoil, want string }{
		{"policy", "true", "chain ip filter FORWARD: iptables-nft (policy drop) drops packets that pass through to 10.244.0.0/16"},
		{"policy of iptables-legacy", "iptables -P FORWARD ACCEPT; iptables-legacy -P FORWARD DROP", "chain ip filter FORWARD: iptables-legacy (policy DROP) drops"},
		{"trailing REJECT", "iptables -P FORWARD ACCEPT; iptables -A FORWARD -j REJECT", "chain ip filter FORWARD: iptables-nft (last rule drop or reject) drops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single.with(object{"masqExclude": []string{"10.244.0.0/16"}}), "nft")
			outside := n.outside(false)
			setuptest.In(t, outside, "ip", "addr", "add", "10.244.2.2/32", "dev", "lo")
			setuptest.In(t, outside, "ip", "route", "add", "192.0.2.9", "via", "192.0.2.1")
			n.must("add", n.containers(1)...)
			setuptest.Run(t, "sh", "-c", tt.spoil+"; "+programs+"/bvctl --conf-dir /run/net.d repair")
			if out, _ := bvctl(t, "doctor"); strings.Contains(out, "drops packets that pass through") {
				t.Errorf("without other nodes: %s", out)
			}
			setuptest.Run(t, "sh", "-c", "ip route add 10.244.2.0/24 via 192.0.2.2; "+proxy)
			if setuptest.Ping(t, outside, "192.0.2.9") {
				t.Fatal("the packet passes: the test proves nothing")
			}
			out, status := bvctl(t, "doctor")
			if status != 0 || !strings.Contains(out, tt.want) {
				t.Errorf("status %d, want %q: %s", status, tt.want, out)
			}
			_, advice, _ := strings.Cut(out, "is on another node: ")
			advice, _, _ = strings.Cut(advice, "\n")
			if replies := "-s 10.244.0.0/16 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"; !strings.Contains(advice, replies) {
				t.Errorf("%q accepts new connections from pods of other nodes", advice)
			}
			setuptest.Run(t, "sh", "-c", advice)
			if !setuptest.Ping(t, outside, "192.0.2.9") {
				t.Errorf("the packet is dropped after %q", advice)
			}
			if out, _ := bvctl(t, "doctor"); strings.Contains(out, "drops packets that pass through") {
				t.Errorf("after the advice: %s", out)
			}
		})
	}
}

// TestDoctorThroughAccepted checks that the doctor finds no fault if rules of kube-proxy or flannel
// accept transit packets, which enter and leave the node by its uplink.
func TestDoctorThroughAccepted(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]string{
		"kube-proxy": "iptables -N KUBE-FORWARD; iptables -A FORWARD -j KUBE-FORWARD; iptables -A KUBE-FORWARD -m comment --comment 'kubernetes forwarding rules' -m mark --mark 0x4000/0x4000 -j ACCEPT",
		"flannel":    "iptables -N FLANNEL-FWD; iptables -A FORWARD -j FLANNEL-FWD; iptables -A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT; iptables -A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT",
	} {
		for _, u := range userlands {
			t.Run(name+"/"+u.name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, single.with(object{"masqExclude": []string{"10.244.0.0/16"}}), "nft")
				n.outside(false)
				setuptest.Run(t, "ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.2")
				n.must("add", n.containers(1)...)
				doctor := programs + "/bvctl --conf-dir /run/net.d doctor"
				if out := u.run(t, doctor); !strings.Contains(out, "drops packets that pass through") {
					t.Fatalf("without the rules: %s", out)
				}
				u.run(t, rules)
				if out := u.run(t, doctor); strings.Contains(out, "drops packets that pass through") {
					t.Errorf("%s", out)
				}
			})
		}
	}
}

// TestDoctorThroughTransit checks that the doctor finds no fault if the node agent's rules accept
// transit packets, which enter and leave the node by its uplink.
func TestDoctorThroughTransit(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"masqExclude": []string{"10.244.0.0/16"}}), "nft")
	n.outside(false)
	setuptest.Run(t, "ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.2")
	n.must("add", n.containers(1)...)
	if out, _ := bvctl(t, "doctor"); !strings.Contains(out, "drops packets that pass through") {
		t.Fatalf("without the rules: %s", out)
	}
	host, err := setup.CurrentHost()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if _, err := host.EnsureTransit([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if out, _ := bvctl(t, "doctor"); strings.Contains(out, "drops packets that pass through") {
		t.Errorf("%s", out)
	}
}
