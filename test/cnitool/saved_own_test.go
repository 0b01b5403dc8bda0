package cnitool

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestSavedFeatures saves the ruleset by nft(8) while containers run, with each feature alone and
// with all features. It loads the saved ruleset twice: over the existing ruleset, and after a
// flush. It checks that packets then pass or are dropped as before, and that CHECK, bvctl repair,
// ADD and DEL succeed. TestSavedRuleset covers the rules in the tables of iptables.
func TestSavedFeatures(t *testing.T) {
	t.Parallel()
	policies := object{"inbound": "established", "ingressPolicy": "same-bridge", "forwardMark": "0x100000"}
	published := object{"capabilities": object{"portMappings": true}}
	for name, feature := range map[string]object{
		"masquerade":            {},
		"masquerade with holes": {"masqExclude": []string{"192.0.2.128/25", "2001:db8::8000/113"}},
		"host ports":            published,
		"policies":              policies,
		"guard of MACs":         {"macspoofchk": true},
		"guard of addresses":    {"ipspoofchk": true},
		"all":                   published.with(policies).with(object{"ipspoofchk": true, "masqExclude": []string{"192.0.2.128/25"}}),
	} {
		t.Run(name, func(t *testing.T) {
			eachUserland(t, func(t *testing.T, u userland) { saveFeature(t, u, feature) })
		})
	}
}

func saveFeature(t *testing.T, u userland, feature object) {
	n := newNode(t, dual.with(object{"forward": "none"}).with(feature))
	for _, family := range []string{"ip", "ip6"} { // br_netfilter would drop frames with wrong checksums
		setuptest.SetSysctl(t, "bridge/bridge-nf-call-"+family+"tables", "0")
	}
	c, outside := n.containers(3), n.outside(true)
	serve(t, c[0], 80)
	before := setuptest.Dump(t)
	verb := func(verb string, i int) {
		t.Helper()
		n.env = []string{fmt.Sprintf(`CAP_ARGS={"portMappings": [{"hostPort": %d, "containerPort": 80, "protocol": "tcp"},
			{"hostPort": %d, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}]}`, 8080+i, 9090+i)}
		n.must(verb, c[i])
	}
	verb("add", 0)
	verb("add", 1)
	holds := func(when string) {
		t.Helper()
		for _, to := range []string{"10.88.0.2", "fd88::2"} {
			if !setuptest.Ping(t, c[1], to) {
				t.Errorf("%s: no answer from %s", when, to)
			}
		}
		if got := ask(t, c[1], "tcp", "10.88.0.2", 80); got != "10.88.0.3" {
			t.Errorf("%s: a container of the network sees client %q", when, got)
		}
		for _, port := range []int{8080, 9090} {
			if feature["capabilities"] != nil && ask(t, outside, "tcp", "192.0.2.1", port) == "" {
				t.Errorf("%s: host port %d does not answer", when, port)
			}
		}
		if got := ask(t, outside, "tcp", "10.88.0.2", 80) == ""; got != (feature["inbound"] != nil) {
			t.Errorf("%s: closed to outside: %v", when, got)
		}
		for _, f := range guardedFrames {
			if feature["ipspoofchk"] == nil && feature["macspoofchk"] == nil {
				break
			}
			want := feature["ipspoofchk"] == nil && f.mac || f.all
			if got := passes(t, c[0], c[1], f.text); got != want {
				t.Errorf("%s: %s: arrived: %v, want %v", when, f.name, got, want)
			}
		}
		verb("check", 0)
		verb("check", 1)
	}
	const reload = "nft list ruleset >/run/saved; nft -c -f /run/saved; nft flush ruleset; nft -f /run/saved; nft -s list ruleset"
	if first, second := u.run(t, reload), u.run(t, reload); first != second {
		t.Errorf("the ruleset changes each time:\n%s", cmp.Diff(first, second))
	}
	holds("loaded")
	setuptest.Run(t, "sh", "-ec", `for f in ip ip6 bridge; do nft list table $f bridgeveth 2>/dev/null | sed -n "s/^.chain \(.*\) {/nft flush chain $f bridgeveth \1/p"; done | sh -e`)
	if out, status := bvctl(t, "repair"); status != 0 {
		t.Errorf("repair: status %d: %s", status, out)
	}
	verb("check", 0)
	u.run(t, reload)
	verb("add", 2)
	holds("after the next ADD")
	for i := range c {
		verb("del", i)
	}
	setuptest.Same(t, before, "DEL left traces")
}
