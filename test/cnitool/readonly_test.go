package cnitool

import (
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestReadOnlySysctls checks ADD where /proc/sys is read-only, as in a nested container. ADD must
// succeed if the sysctls that the network needs already have the right values. Otherwise, the error
// must name the sysctl.
func TestReadOnlySysctls(t *testing.T) {
	t.Parallel()
	const forwarding = "echo 1 >/proc/sys/net/ipv4/ip_forward; "
	const forwarding6 = forwarding + "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; "
	const noRouters = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra; "
	for _, tt := range []struct {
		name, before string // before is a command that sets sysctls before /proc/sys becomes read-only
		conf         object
		refused      string // the sysctl that the error names
	}{
		{"IPv4", forwarding, single, ""},
		{"IPv4, not forwarding", "", single, "net/ipv4/ip_forward to 1"},
		{"IPv4 without a gateway", "", single.with(object{"isDefaultGateway": false, "ipMasq": false}), ""},
		{"dual, not forwarding", forwarding, dual, "net/ipv6/conf/all/forwarding to 1"},
		{"dual", forwarding6, dual, "net/ipv6/conf/eth0/accept_ra to 0"},
		{"dual, no routers", forwarding6 + "for c in 1 2; do ip netns exec c$c sh -c '" + noRouters + "'; done; ", dual, ""},
		{"host port", forwarding, publishing(single, object{"hostPort": 8080, "containerPort": 80}), "route_localnet to 1"},
		{"host port, 127.0.0.1 is routed", forwarding + "echo 1 >/proc/sys/net/ipv4/conf/default/route_localnet; ",
			publishing(single, object{"hostPort": 8080, "containerPort": 80}), ""},
		{"layer 2", "", object{"type": "bridgeveth", "bridge": "br0"}, ""},
		{"sysctl", forwarding, single.with(object{"sysctl": object{"net.ipv4.conf.IFNAME.rp_filter": "2"}}), "net/ipv4/conf/eth0/rp_filter to 2"},
		{"forward: sysctl", forwarding, single.with(object{"forward": "sysctl"}), "net/bridge/bridge-nf-call-iptables to 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf, "nft")
			c := n.containers(2)
			setuptest.Run(t, "sh", "-ec", tt.before+"mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys")
			before := setuptest.Dump(t)
			if tt.refused != "" {
				f := on("ADD", 1, tt.conf).run(t).failed(t)
				for _, want := range []string{tt.refused, "read-only file system", "let the program that mounts /proc/sys set the sysctl"} {
					if !strings.Contains(f.Msg, want) {
						t.Errorf("%q is not in %q", want, f.Msg)
					}
				}
				setuptest.Same(t, before, "a failed ADD left traces")
				noLeases(t)
				return
			}
			if tt.conf["runtimeConfig"] != nil {
				c = c[:1] // both containers would need the same host port
			}
			n.must("add", c...)
			n.must("check", c...)
			if tt.conf["ipam"] != nil && len(c) > 1 && !setuptest.Ping(t, c[0], "10.88.0.3") {
				t.Error("no answer from the other container")
			}
			n.must("del", c...)
			setuptest.Same(t, before, "DEL left traces")
			noLeases(t)
		})
	}
}
