package dropin

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestFirewall checks that containers reach each other if the plugin firewall runs after a bridge
// plugin that adds no FORWARD rules. The policy of FORWARD is DROP.
func TestFirewall(t *testing.T) {
	t.Parallel()
	newNode(t)
	left := bridge.with(object{"forward": "none"})
	before := setuptest.Dump(t)
	c1, c2 := setuptest.Container(t, "c1"), setuptest.Container(t, "c2")
	_ = c2
	for _, tt := range []struct {
		name   string
		list   object
		passes bool
	}{{"bridge alone", list("1.1.0", left), false}, {"with firewall", list("1.1.0", left, firewall), true}} {
		a, b := attach(t, ours, "c1", tt.list), attach(t, ours, "c2", tt.list)
		a.mustAdd()
		b.mustAdd()
		address := strings.Fields(setuptest.In(t, c2, "ip", "-o", "-4", "addr", "show", "eth0"))[3]
		if got := setuptest.Ping(t, c1, strings.TrimSuffix(address, "/24")); got != tt.passes {
			t.Errorf("%s: the ping passes: %v, want %v", tt.name, got, tt.passes)
		}
		if tt.passes {
			must(t, a.check())
			setuptest.Run(t, "iptables-nft", "-F", "BRIDGEVETH-FORWARD")
			refused(t, a.check(), 103, "rules of bridge br0 in iptables-nft filter FORWARD: missing")
		}
		must(t, a.del())
		must(t, b.del())
		setuptest.Same(t, before, "DEL left traces")
	}
}

// TestIngressPolicy checks, for each ingress policy, whether a container gets packets from a
// container on the same bridge, and from a container on another bridge.
func TestIngressPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy            string
		sibling, stranger bool
	}{{"open", true, true}, {"same-bridge", true, false}, {"isolated", false, false}} {
		t.Run(tt.policy, func(t *testing.T) {
			t.Parallel()
			newNode(t)
			before := setuptest.Dump(t)
			network := func(name, bridgeName, subnet string) object {
				ipam := object{"type": "host-local", "ranges": [][]object{{{"subnet": subnet}}}, "routes": []object{{"dst": "0.0.0.0/0"}}}
				return list("1.1.0", bridge.with(object{"bridge": bridgeName, "ipam": ipam}), firewall.with(object{"ingressPolicy": tt.policy})).with(object{"name": name})
			}
			var all []*attachment
			var containers []*setup.Namespace
			for i, l := range []object{network("a", "br0", "10.88.0.0/24"), network("a", "br0", "10.88.0.0/24"), network("b", "br1", "10.89.0.0/24")} {
				name := fmt.Sprintf("c%d", i+1)
				containers = append(containers, setuptest.Container(t, name))
				a := attach(t, ours, name, l)
				a.mustAdd()
				all = append(all, a)
			}
			if got := setuptest.Ping(t, containers[1], "10.88.0.2"); got != tt.sibling {
				t.Errorf("from the same bridge: %v, want %v", got, tt.sibling)
			}
			if got := setuptest.Ping(t, containers[2], "10.88.0.2"); got != tt.stranger {
				t.Errorf("from another bridge: %v, want %v", got, tt.stranger)
			}
			for _, a := range all {
				must(t, a.check())
			}
			if tt.policy != "open" {
				// The plugin firewall must not replace a rule that exists already, so the rule must
				// keep its handle.
				rule := regexp.MustCompile(`"br0 firewall .*" # (handle \d+)`)
				first := rule.FindString(setuptest.Run(t, "nft", "-a", "list", "chain", "ip", "bridgeveth", "forwarded"))
				must(t, all[1].del())
				all[1].mustAdd()
				if again := rule.FindString(setuptest.Run(t, "nft", "-a", "list", "chain", "ip", "bridgeveth", "forwarded")); first == "" || again != first {
					t.Errorf("the rule was %q, and is %q", first, again)
				}
				setuptest.Run(t, "sh", "-c", "nft delete rule ip bridgeveth forwarded "+rule.FindStringSubmatch(first)[1])
				// CHECK of firewall reports the missing rule. But with the policy isolated, CHECK
				// of bridge fails first: it accepts an isolated bridge port only if this rule
				// exists.
				refused(t, all[0].check(), 103, map[bool]string{true: "policy firewall same-bridge", false: "isolation of port"}[tt.sibling])
			}
			for _, a := range all {
				must(t, a.del())
			}
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestIngressPolicyLayer2 checks the policy isolated for containers to which ADD gives no
// addresses: they must not reach each other.
func TestIngressPolicyLayer2(t *testing.T) {
	t.Parallel()
	newNode(t)
	layer2 := object{"type": "bridge", "bridge": "br0"}
	var all []*attachment
	before := setuptest.Dump(t)
	c1, c2 := setuptest.Container(t, "c1"), setuptest.Container(t, "c2")
	for _, name := range []string{"c1", "c2"} {
		all = append(all, attach(t, ours, name, list("1.1.0", layer2, firewall.with(object{"ingressPolicy": "isolated"}))))
		all[len(all)-1].mustAdd()
	}
	setuptest.In(t, c1, "ip", "addr", "add", "10.88.0.2/24", "dev", "eth0")
	setuptest.In(t, c2, "ip", "addr", "add", "10.88.0.3/24", "dev", "eth0")
	for _, a := range all {
		must(t, a.check())
	}
	if setuptest.Ping(t, c1, "10.88.0.3") {
		t.Error("they reach each other")
	}
	for _, a := range all {
		must(t, a.del())
	}
	setuptest.Same(t, before, "DEL left traces")
}

// TestIngressPolicyChanged changes the ingress policy of a network. It checks that the next ADD
// removes the rules of the old policy.
func TestIngressPolicyChanged(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	setuptest.Container(t, "c2")
	first := attach(t, ours, "c1", list("1.0.0", bridge, firewall.with(object{"ingressPolicy": "isolated"})))
	first.mustAdd()
	must(t, first.check())
	attach(t, ours, "c2", list("1.0.0", bridge, firewall)).mustAdd()
	if rules := setuptest.Run(t, "nft", "list", "ruleset"); strings.Contains(rules, "br0 firewall") {
		t.Errorf("the old policy is still there:\n%s", rules)
	}
	refused(t, attach(t, ours, "c1", list("1.0.0", bridge, firewall)).check(), 103, "isolation of port")
}

// TestAdminChain checks that our rules accept no packets that the chain CNI-ADMIN drops. In this
// chain of the reference plugin firewall, administrators add their own rules.
func TestAdminChain(t *testing.T) {
	t.Parallel()
	newNode(t)
	c1 := setuptest.Container(t, "c1")
	setuptest.Container(t, "c2")
	theirs := attach(t, reference, "c1", list("1.0.0", bridge, firewall))
	theirs.mustAdd()
	must(t, theirs.cni.DelNetworkList(t.Context(), theirs.list, theirs.runtime))
	network := list("1.0.0", bridge, firewall)
	attach(t, ours, "c1", network).mustAdd()
	attach(t, ours, "c2", network).mustAdd()
	address := strings.TrimSuffix(strings.Fields(setuptest.Run(t, "ip", "netns", "exec", "c2", "ip", "-o", "-4", "addr", "show", "eth0"))[3], "/24")
	if !setuptest.Ping(t, c1, address) {
		t.Fatal("the ping does not pass")
	}
	setuptest.Run(t, "iptables-nft", "-A", "CNI-ADMIN", "-d", address, "-j", "DROP")
	if setuptest.Ping(t, c1, address) {
		t.Error("the administrator's DROP is bypassed")
	}
}

// TestLoopback checks that our plugin loopback has the same results and effects as the reference
// plugin.
func TestLoopback(t *testing.T) {
	t.Parallel()
	for _, given := range []object{nil, {"cniVersion": "1.1.0", "interfaces": []object{{"name": "eth0", "sandbox": "/run/netns/c1"}}}} {
		results := map[string]object{}
		conf := object{}
		if given != nil {
			conf["prevResult"] = given
		}
		for name, dir := range map[string]string{"reference": reference, "ours": ours} {
			t.Run(name, func(t *testing.T) {
				newNode(t)
				c1 := setuptest.Container(t, "c1")
				program := filepath.Join(dir, "loopback")
				setuptest.In(t, c1, "ip", "link", "set", "lo", "down")
				if _, err := call(t, program, "CHECK", "c1", object{"prevResult": object{"cniVersion": "1.1.0"}}); err == nil {
					t.Error("CHECK does not report that lo is down")
				}
				var err error
				results[name], err = call(t, program, "ADD", "c1", conf)
				must(t, err)
				if !setuptest.Ping(t, c1, "127.0.0.1") {
					t.Error("no answer from 127.0.0.1")
				}
				_, err = call(t, program, "CHECK", "c1", object{"prevResult": results[name]})
				must(t, err)
				for _, verb := range []string{"DEL", "DEL", "GC", "STATUS"} {
					_, err = call(t, program, verb, "c1", object{"cni.dev/valid-attachments": []object{}})
					must(t, err)
				}
				if setuptest.Ping(t, c1, "127.0.0.1") {
					t.Error("DEL leaves lo up")
				}
				_, err = call(t, program, "DEL", "gone", nil)
				must(t, err)
			})
		}
		if want, got := fmt.Sprint(results["reference"]), fmt.Sprint(results["ours"]); want != got || got == "map[]" {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestLoopbackOfHost checks that the plugin loopback refuses the host's own network namespace, so
// that DEL does not set the host's lo down.
func TestLoopbackOfHost(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	setuptest.Run(t, "mkdir", "-p", "/run/netns")
	setuptest.Run(t, "sh", "-c", "touch /run/netns/host; mount --bind /proc/self/ns/net /run/netns/host")
	for _, verb := range []string{"ADD", "DEL"} {
		_, err := call(t, filepath.Join(ours, "loopback"), verb, "host", nil)
		refused(t, err, 8, "this is the host's own network namespace")
	}
	if !setuptest.Ping(t, n.Namespace, "127.0.0.1") {
		t.Error("the host's lo is down")
	}
}
