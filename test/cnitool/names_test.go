package cnitool

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestLongMarks uses a container ID of 64 letters and network names of 153 to 200 letters. The
// longest of these names do not fit into a comment of nf_tables. The test checks that CHECK and DEL
// find everything that bridgeveth marks with these names.
func TestLongMarks(t *testing.T) {
	t.Parallel()
	conf := publishing(dual.with(object{"ipspoofchk": true}), object{"hostPort": 8080, "containerPort": 80})
	newNode(t, conf, "nft").containers(1)
	before := setuptest.Dump(t)
	for _, length := range []int{153, 154, 155, 156, 157, 200} {
		call := on("ADD", 1, conf.with(object{"name": strings.Repeat("n", length)}))
		call.container = strings.Repeat("x", 64)
		added := call.run(t).ok(t)
		check := call
		check.verb, check.conf = "CHECK", call.conf.with(object{"prevResult": json.RawMessage(added.stdout)})
		check.run(t).ok(t)
		call.verb = "DEL"
		call.run(t).ok(t)
		if !setuptest.Same(t, before, "a network's name of %d letters: DEL left traces", length) {
			t.FailNow()
		}
	}
}

// TestDottedBridge checks a bridge named br0.5. A VLAN link of the bridge br0 could have the same
// name. The rules of br0.5 must remain when br0 is removed.
func TestDottedBridge(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"inet mine", "ip filter"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			newNode(t, single, "nft").containers(2)
			setuptest.Run(t, "sh", "-c", fmt.Sprintf("nft add table %[1]s; nft add chain %[1]s fw '{ type filter hook forward priority 0; policy drop; }'", table))
			before := setuptest.Dump(t)
			conf := single.with(object{"forwardChains": []string{table + " fw"}})
			other := conf.with(object{"name": "other", "bridge": "br0.5", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
			on("ADD", 1, conf).run(t).ok(t)
			added := on("ADD", 2, other).run(t).ok(t)
			on("DEL", 1, conf).run(t).ok(t)
			on("CHECK", 2, other.with(object{"prevResult": json.RawMessage(added.stdout)})).run(t).ok(t)
			on("DEL", 2, other).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestInvalidBridgeName checks DEL and GC with a bridge name that is too long for a link.
func TestInvalidBridgeName(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"bridge": "a-bridge-of-so-long-a-name"})
	newNode(t, single).containers(1)
	if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 7 {
		t.Errorf("got %+v, want code 7", f)
	}
	on("DEL", 1, conf).run(t).ok(t)
	call{verb: "GC", conf: conf.with(object{"cni.dev/valid-attachments": []object{}})}.run(t).ok(t)
}
