package cnitool

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDrift removes, one at a time, the parts of the host's setup that all containers of a network
// share. It checks that `cnitool check` names the part and changes nothing, and that the next ADD
// restores the part for all containers.
func TestDrift(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil []string
		want  string
	}{
		{"rules flushed", []string{"iptables", "-F", "FORWARD"}, "iptables-nft filter FORWARD"},
		{"a jump to DOCKER-USER after ours", []string{"sh", "-c", "iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER"}, "iptables-nft filter FORWARD"},
		{"one rule deleted", []string{"ip6tables", "-D", "BRIDGEVETH-FORWARD", "-i", "br0", "-j", "ACCEPT"}, "ip6tables-nft filter FORWARD"},
		{"policy DROP of iptables-legacy, set later", []string{"iptables-legacy", "-P", "FORWARD", "DROP"}, "iptables-legacy filter FORWARD"},
		{"everything of nft flushed", []string{"nft", "flush", "ruleset"}, "masquerade of 10.88.0.0/24"},
		{"bridge down", []string{"ip", "link", "set", "br0", "down"}, "state up of bridge br0"},
		{"gateway gone", []string{"ip", "addr", "del", "10.88.0.1/24", "dev", "br0"}, "address 10.88.0.1/24 of bridge br0"},
		{"forwarding off", []string{"sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"}, "sysctl net/ipv4/ip_forward"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual, "nft")
			c := n.containers(2)
			n.must("add", c[0])
			n.must("check", c[0])
			setuptest.Run(t, tt.spoil[0], tt.spoil[1:]...)
			before := setuptest.Dump(t)
			if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check: got %v, want %q", err, tt.want)
			}
			setuptest.Same(t, before, "check changed something")
			n.must("add", c[1])
			n.must("check", c[0])
			if !setuptest.Ping(t, c[0], "10.88.0.3") {
				t.Error("the next ADD has not restored the network")
			}
			n.must("del", c...)
		})
	}
}

// TestInvalidPrevResult checks CHECK's error about a prevResult that is not a valid result of ADD.
func TestInvalidPrevResult(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	on("ADD", 1, single).run(t).ok(t)
	for _, tt := range []struct {
		result string
		codes  [2]uint
	}{
		{`{"cniVersion":"1.1.0"}`, [2]uint{103}},
		{`{"cniVersion":"1.1.0","ips":"no"}`, [2]uint{6, 7}},
		{`"no"`, [2]uint{6, 7}},
		{`{"cniVersion":"9.0.0"}`, [2]uint{6, 7}},
		{`{"cniVersion":"1.1.0","interfaces":[null],"ips":[{"interface":0,"address":"10.88.0.2/24"}]}`, [2]uint{7}},
		{`{"cniVersion":"1.1.0","interfaces":[{"name":"eth0"}],"ips":[{"interface":1,"address":"10.88.0.2/24"}]}`, [2]uint{103}},
	} {
		c := on("CHECK", 1, single.with(object{"prevResult": json.RawMessage(tt.result)}))
		f := c.run(t).failed(t)
		if f.Code != tt.codes[0] && f.Code != tt.codes[1] {
			t.Errorf("%s: got %+v, want one of codes %v", tt.result, f, tt.codes)
		}
	}
	on("DEL", 1, single.with(object{"prevResult": json.RawMessage(`{"cniVersion":"9.0.0"}`)})).run(t).ok(t)
}

// TestVerbsOfOldVersions checks the error of a verb that does not exist in the CNI version of the
// configuration.
func TestVerbsOfOldVersions(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	for _, tt := range []struct{ verb, version string }{
		{"CHECK", "0.1.0"}, {"CHECK", "0.3.1"}, {"GC", "1.0.0"}, {"STATUS", "1.0.0"}, {"STATUS", "0.4.0"},
	} {
		conf := single.with(object{"cniVersion": tt.version})
		if f := on(tt.verb, 1, conf).run(t).failed(t); f.Code != 1 || f.CNIVersion != tt.version {
			t.Errorf("%s of %s: got %+v, want code 1", tt.verb, tt.version, f)
		}
	}
}

// TestMissingIP6Tables hides the program ip6tables on a host where iptables-legacy drops the
// packets of both IP families. It checks that the ADD of an IPv4 network succeeds, and that the ADD
// of a dual-stack network fails.
func TestMissingIP6Tables(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "legacy")
	c := n.containers(2)
	setuptest.Hide(t, "ip6tables", "ip6tables-nft", "ip6tables-legacy")
	state := func() string {
		return setuptest.Run(t, "sh", "-c", "ip -o link; ip route; iptables-legacy -S; nft list ruleset")
	}
	empty := state()
	same := func(what string) {
		t.Helper()
		if diff := cmp.Diff(empty, state()); diff != "" {
			t.Errorf("%s left traces (-before +after):\n%s", what, diff)
		}
	}
	f := on("ADD", 1, dual).run(t).failed(t)
	if f.Code != 102 || !strings.Contains(f.Msg, "ip6tables") {
		t.Errorf("got %+v, want code 102 and ip6tables", f)
	}
	same("a failed ADD")
	n.must("status", nil)
	n.must("add", c...)
	n.must("check", c...)
	if !setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Error("the ping is dropped")
	}
	n.must("del", c...)
	same("DEL")
}

// TestNotInCache removes the attachment of a running container from libcni's cache. `cnitool gc`
// calls GC without a list of valid attachments. GC must then keep this attachment. GC with an empty
// list must remove it.
func TestNotInCache(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	before := setuptest.Dump(t)
	c := n.containers(2)
	n.must("add", c[0])
	lost, err := filepath.Glob("/var/lib/cni/results/net-*")
	if err != nil || len(lost) != 1 || os.Remove(lost[0]) != nil {
		t.Fatalf("results in libcni's cache: %v, %v", lost, err)
	}
	n.must("add", c[1])
	if err := n.cnitool("gc", nil); err == nil {
		t.Error("gc reports no error")
	}
	if held := leases(t); len(held) != 1 || !setuptest.Ping(t, c[0], "10.88.0.1") {
		t.Errorf("leases %v, want one for the container that is not in the cache; this container must reach its gateway", held)
	}
	call{verb: "GC", conf: single.with(object{"cni.dev/valid-attachments": []object{}})}.run(t).ok(t)
	setuptest.Same(t, before, "GC left traces")
	noLeases(t)
}
