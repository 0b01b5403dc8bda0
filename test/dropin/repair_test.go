package dropin

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestRepair flushes all rules. It checks that bvctl repair restores everything that the plugins
// bridge, portmap and firewall have made on the host.
func TestRepair(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	outside := n.outside()
	c1 := setuptest.Container(t, "c1")
	serve(t, c1, 80)
	network := list("1.1.0", bridge, portmap, firewall.with(object{"ingressPolicy": "same-bridge"}))
	b, err := json.Marshal(network)
	must(t, err)
	must(t, os.Mkdir("/run/net.d", 0o755))
	must(t, os.WriteFile("/run/net.d/10-net.conflist", b, 0o600))
	a := attach(t, ours, "c1", network, web)
	a.mustAdd()
	bvctl := func(args ...string) string {
		return setuptest.Run(t, filepath.Join(reference, "bvctl"), append([]string{"--conf-dir", "/run/net.d", "--cache-dir", "/run/cni-cache"}, args...)...)
	}
	if got := bvctl("inspect"); !strings.Contains(got, "tcp *:8080") || !strings.Contains(got, "10.88.0.2") {
		t.Errorf("inspect shows:\n%s", got)
	}
	setuptest.Run(t, "nft", "flush", "ruleset")
	setuptest.DropForward(t, "iptables-nft")
	if ask(t, outside, "192.0.2.1:8080") != "" || a.check() == nil {
		t.Fatal("nothing is missing: the test proves nothing")
	}
	check := exec.Command(filepath.Join(reference, "bvctl"), "--conf-dir", "/run/net.d", "--cache-dir", "/run/cni-cache", "leases", "check")
	if out, err := check.Output(); err == nil || !strings.Contains(string(out), "host port tcp *:8080") || !strings.Contains(string(out), "policy firewall same-bridge") {
		t.Errorf("leases check: %v, output:\n%s", err, out)
	}
	said := bvctl("repair")
	for _, want := range []string{"restored host ports of port", "restored policy firewall same-bridge", "restored rules of bridge br0"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in the output of repair:\n%s", want, said)
		}
	}
	must(t, a.check())
	if ask(t, outside, "192.0.2.1:8080") == "" {
		t.Error("no answer after the repair")
	}
	setuptest.Run(t, "sh", "-ec", "iptables-nft -t nat -F CNI-HOSTPORT-DNAT; iptables-nft -t nat -X CNI-HOSTPORT-DNAT")
	refused(t, a.check(), 103, "host ports in chain CNI-HOSTPORT-DNAT")
	if said := bvctl("repair"); !strings.Contains(said, "restored host ports of port") {
		t.Errorf("output of the repair of a deleted chain:\n%s", said)
	}
	must(t, a.check())
	if again := bvctl("repair"); again != "nothing was missing\n" {
		t.Errorf("output of the second repair:\n%s", again)
	}
}
