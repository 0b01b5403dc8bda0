package cnitool

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDelegatesAgree requests the same addresses from several IPAM plugins. It checks that ADD
// returns the same result for each of them. If ADD fails after the IPAM plugin has leased an
// address, no lease may be left.
func TestDelegatesAgree(t *testing.T) {
	ranges := [][]object{{{"subnet": "10.88.0.0/24"}}, {{"subnet": "fd88::/64"}}}
	routes := []object{{"dst": "203.0.113.0/24"}}
	results := map[string]string{}
	for name, ipam := range map[string]object{
		"ipam-simple": {"type": "ipam-simple", "ranges": ranges, "routes": routes},
		"host-local":  {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": "/run/host-local"},
		"static": {"type": "static", "routes": routes, "addresses": []object{
			{"address": "10.88.0.2/24", "gateway": "10.88.0.1"}, {"address": "fd88::2/64", "gateway": "fd88::1"},
		}},
	} {
		t.Run(name, func(t *testing.T) { // not parallel: the results are compared below
			conf := dual.with(object{"ipam": ipam})
			n := newNode(t, conf, "nft")
			n.containers(1)
			a := on("ADD", 1, conf).run(t).ok(t)
			mac := strings.Fields(setuptest.Run(t, "ip", "-br", "link", "show", "br0"))[2]
			results[name] = strings.NewReplacer(mac, "BRIDGE-MAC").Replace(string(a.stdout))
			on("CHECK", 1, conf.with(object{"prevResult": json.RawMessage(a.stdout)})).run(t).ok(t)
			on("DEL", 1, conf).run(t).ok(t)

			setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
			setuptest.Run(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "br0")
			before := setuptest.Dump(t)
			if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 101 {
				t.Errorf("got %+v, want code 101", f)
			}
			setuptest.Same(t, before, "a failed ADD left traces")
			if left, _ := os.ReadDir("/run/host-local/net"); strings.Contains(fmt.Sprint(left), "10.88.0.") {
				t.Errorf("a failed ADD left a lease: %v", left)
			}
		})
	}
	for name, got := range results {
		if diff := cmp.Diff(results["static"], got); diff != "" {
			t.Errorf("%s differs from static (-static +%s):\n%s", name, name, diff)
		}
	}
}

// TestBadDelegate checks each way in which an IPAM plugin can fail: the error has a fixed code
// and names the IPAM plugin, and ADD leaves nothing.
func TestBadDelegate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script string
		version      string
		code         uint
		want         []string
	}{
		{"its own code", `echo '{"code":123,"msg":"no luck"}'; exit 1`, "1.1.0", 123, []string{"bad-ipam", "no luck"}},
		{"an unknown error code", `echo '{"code":999,"msg":"no luck"}'; exit 1`, "1.1.0", 105, []string{"bad-ipam", "no luck"}},
		{"no error", `echo oops >&2; exit 3`, "1.1.0", 105, []string{"bad-ipam", "exit status 3"}},
		{"killed", `kill -9 $$`, "1.1.0", 105, []string{"bad-ipam", "killed"}},
		{"garbage", `echo hello`, "1.1.0", 105, []string{"bad-ipam", "result"}},
		{"nothing", `:`, "1.1.0", 105, []string{"bad-ipam", "result"}},
		{"null", `echo null`, "1.1.0", 105, []string{"bad-ipam"}},
		{"an unknown version", `echo '{"cniVersion":"7.0.0"}'`, "1.1.0", 105, []string{"bad-ipam", "7.0.0"}},
		{"no address", `echo '{"cniVersion":"1.1.0"}'`, "1.1.0", 105, []string{"bad-ipam", "no address"}},
		{"an address twice", `echo '{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.2/24"},{"address":"10.88.0.2/24"}]}'`, "1.1.0", 0, nil},
		{"a gateway of the other family", `echo '{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.2/24","gateway":"fd88::1"}]}'`, "1.1.0", 105, []string{"fd88::1", "other address family"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf := single.with(object{"cniVersion": tt.version, "ipam": object{"type": "bad-ipam"}})
			n := newNode(t, conf, "nft")
			n.containers(1)
			setuptest.WriteProgram(t, "/run/bad-ipam", "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || { echo $CNI_COMMAND >>/run/verbs; exit 0; }\n"+tt.script+"\n")
			before := setuptest.Dump(t)
			c := on("ADD", 1, conf)
			c.path = "/run:" + programs
			a := c.run(t)
			if tt.code == 0 {
				a.ok(t)
				c.verb = "DEL"
				c.run(t).ok(t)
			} else if f := a.failed(t); f.Code != tt.code || f.CNIVersion != tt.version {
				t.Errorf("got %+v, want code %d of %s", f, tt.code, tt.version)
			} else {
				for _, want := range tt.want {
					if !strings.Contains(f.Msg, want) {
						t.Errorf("%q is not in %q", want, f.Msg)
					}
				}
			}
			setuptest.Same(t, before, "it left traces")
			if verbs, _ := os.ReadFile("/run/verbs"); string(verbs) != "DEL\n" {
				t.Errorf("after ADD the IPAM plugin was called with %q, want DEL", verbs)
			}
		})
	}
}
