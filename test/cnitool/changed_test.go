package cnitool

import (
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestConfigurationChanged checks that DEL and GC remove an attachment even if the configuration
// has changed since its ADD.
func TestConfigurationChanged(t *testing.T) {
	t.Parallel()
	mapped := func(port int) object { return object{"hostPort": port, "containerPort": 80} }
	renamed := dual.with(object{"bridge": "br1"})
	for _, tt := range []struct {
		name   string
		beside object // configuration of another, unchanged container
		added  object
		gone   call
	}{
		{"DEL with another bridge", nil, dual, on("DEL", 1, renamed)},
		{"GC with another bridge", nil, dual, call{verb: "GC", conf: renamed.with(object{"cni.dev/valid-attachments": []object{}})}},
		{"DEL with another host port", publishing(dual, mapped(7000)), publishing(dual, mapped(8080)), on("DEL", 1, publishing(dual, mapped(9090)))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, dual, "nft").containers(2)
			if tt.beside != nil {
				on("ADD", 2, tt.beside).run(t).ok(t)
			}
			before := setuptest.Dump(t)
			on("ADD", 1, tt.added).run(t).ok(t)
			tt.gone.run(t).ok(t)
			setuptest.Same(t, before, "it left traces")
		})
	}
}

// TestLostWithoutDEL deletes a container's bridge port without a DEL, and repeats the ADD with a
// changed configuration. It checks that the container reaches its new gateway, and that the old
// bandwidth limit is gone.
func TestLostWithoutDEL(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(2)
	on("ADD", 2, single).run(t).ok(t)
	on("ADD", 1, limited(single.with(object{"ipspoofchk": true}), limits)).run(t).ok(t)
	setuptest.Run(t, "ip", "link", "delete", setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port())
	again := single.with(object{"ipam": object{"type": "ipam-simple", "subnet": "10.99.0.0/24"}, "gatewayConflict": "add"})
	on("ADD", 1, again).run(t).ok(t)
	c1, err := setup.OpenNamespace("/run/netns/c1")
	if err != nil {
		t.Fatal(err)
	}
	defer c1.Close()
	if !setuptest.Ping(t, c1, "10.99.0.1") {
		t.Error("no answer from the gateway")
	}
	if links := setuptest.Run(t, "ip", "-br", "link"); strings.Contains(links, "ifb") {
		t.Errorf("the old limit is left:\n%s", links)
	}
}

// TestFailedADDRestoresSysctls checks that a failed ADD restores the container's sysctls, including
// those that belong to no interface. ADD fails because the bridge runs STP. With STP, a new port
// forwards frames only after a delay.
func TestFailedADDRestoresSysctls(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"sysctl": object{"net.ipv4.ip_default_ttl": "33"}})
	c1 := newNode(t, conf).containers(1)[0]
	setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge", "stp_state", "1")
	if f := on("ADD", 1, conf).run(t).failed(t); !strings.Contains(f.Msg, "STP") {
		t.Errorf("got %+v, want an error about STP", f)
	}
	if got := strings.TrimSpace(setuptest.In(t, c1, "cat", "/proc/sys/net/ipv4/ip_default_ttl")); got != "64" {
		t.Errorf("the container's ip_default_ttl is %s, want 64 as before", got)
	}
}
