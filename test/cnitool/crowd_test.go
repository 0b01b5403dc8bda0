package cnitool

import (
	"fmt"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestManyForeignRules adds thousands of rules after bridgeveth's rules, as another program may do.
// It checks that ADD does not read these rules.
func TestManyForeignRules(t *testing.T) {
	t.Parallel()
	const restore = `{ echo "*filter"; for i in $(seq %d); do echo "-A FORWARD -s 192.0.2.9 -p tcp --dport $i -j ACCEPT"; done; echo COMMIT; } | iptables-restore -n`
	const load = `{ for i in $(seq %d); do echo "add rule inet filter forward ip saddr 192.0.2.9 tcp dport $i accept"; done; } | nft -f -`
	for _, tt := range []struct {
		name, rules, add string
		conf             object
	}{
		{"FORWARD", "iptables -P FORWARD DROP", restore, single},
		{"FORWARD, Docker 28", "I=iptables\n" + docker28, restore, single},
		{"FORWARD, Docker 20 to 27", "I=iptables\n" + docker27, restore, single},
		{"a chain of forwardChains", unknown, load, single.with(object{"forwardChains": []string{"inet filter forward"}})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf)
			n.containers(3)
			setuptest.Run(t, "sh", "-ec", tt.rules)
			first := on("ADD", 1, tt.conf).run(t).ok(t)
			// Only data from nftables sockets count. The amount of data from rtnetlink differs from
			// run to run, because it depends on how long the kernel takes to report the port's
			// carrier.
			const rules = "NETLINK:[NETFILTER:"
			setuptest.Run(t, "sh", "-ec", fmt.Sprintf(tt.add, 200))
			few := received(t, on("ADD", 2, tt.conf), rules)
			setuptest.Run(t, "sh", "-ec", fmt.Sprintf(tt.add, 4800))
			if many := received(t, on("ADD", 3, tt.conf), rules); few == 0 || many > few+20<<10 {
				t.Errorf("an ADD reads %d bytes with 5,000 rules, and %d with 200", many, few)
			}
			on("CHECK", 1, checking(tt.conf, first)).run(t).ok(t)
		})
	}
}

// TestManyLegacyRules checks ADD, CHECK and DEL on a host with 5,000 rules of another program in FORWARD of
// iptables-legacy. The last of these rules rejects all packets.
func TestManyLegacyRules(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "legacy")
	c := n.containers(2)
	setuptest.Run(t, "sh", "-ec", `{ echo "*filter"; for i in $(seq 4999); do echo "-A FORWARD -s 192.0.2.9 -p tcp --dport $i -j ACCEPT"; done; echo "-A FORWARD -j REJECT"; echo COMMIT; } | iptables-legacy-restore -n`)
	before := setuptest.Dump(t)
	n.must("add", c...)
	n.must("check", c...)
	if !setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Error("no answer from the other container")
	}
	n.must("del", c...)
	setuptest.Same(t, before, "DEL left traces")
}
