package dropin

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// nerdctlNetwork returns a network configuration as `nerdctl network create` writes it (nerdctl's
// package pkg/netutil).
func nerdctlNetwork(name, bridgeName, subnet, gateway string) object {
	return object{
		"cniVersion": "1.0.0", "name": name, "nerdctlID": strings.Repeat("0a", 32), "nerdctlLabels": object{},
		"plugins": []object{
			{
				"type": "bridge", "bridge": bridgeName, "isGateway": true, "ipMasq": true, "hairpinMode": true,
				"ipam": object{"ranges": [][]object{{{"gateway": gateway, "subnet": subnet}}}, "routes": []object{{"dst": "0.0.0.0/0"}}, "type": "host-local"},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
			{"type": "firewall", "ingressPolicy": "same-bridge"},
			{"type": "tuning"},
		},
	}
}

// usedPorts returns the host ports that nerdctl takes for used. nerdctl reads them from the
// iptables chain CNI-HOSTPORT-DNAT (its package pkg/portutil).
func usedPorts(t testing.TB) (ports []string) {
	t.Helper()
	if exec.Command("iptables-nft", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT", "1").Run() != nil {
		return nil // there is no such chain
	}
	for _, line := range strings.Split(setuptest.Run(t, "iptables-nft", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT"), "\n") {
		if m := regexp.MustCompile(`--dports ((,?\d+)+)`).FindStringSubmatch(line); m != nil {
			ports = append(ports, strings.Split(m[1], ",")...)
		}
	}
	slices.Sort(ports)
	return ports
}

// TestNerdctl makes the calls of nerdctl's hook for a container: DEL before anything is attached,
// ADD, and DEL without a namespace. It checks that host ports are reachable from outside although
// the policy of FORWARD is DROP. With the reference plugins they are not.
func TestNerdctl(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, dir, answer string }{{"reference", reference, ""}, {"ours", ours, "192.0.2.2"}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			outside := n.outside()
			before := setuptest.Dump(t)
			var all []*attachment
			for i, network := range []object{
				nerdctlNetwork("one", "br-0a0a0a0a0a0a", "10.4.1.0/24", "10.4.1.1"), nerdctlNetwork("one", "br-0a0a0a0a0a0a", "10.4.1.0/24", "10.4.1.1"),
				nerdctlNetwork("two", "br-0b0b0b0b0b0b", "10.4.2.0/24", "10.4.2.1"),
			} {
				id := "default-" + strings.Repeat(string("123"[i]), 64)
				setuptest.Container(t, id)
				a := attach(t, tt.dir, id, network)
				a.runtime.Args = append(a.runtime.Args, [2]string{"NERDCTL_CNI_DHCP_HOSTNAME", "web"})
				if i == 0 {
					a.runtime.CapabilityArgs["portMappings"] = []portMapping{web, {HostPort: 49153, ContainerPort: 53, Protocol: "udp"}}
				}
				must(t, a.del())
				a.mustAdd()
				all = append(all, a)
			}
			web, sibling, stranger := all[0].container(), all[1].container(), all[2].container()
			serve(t, web, 80)
			if !setuptest.Ping(t, sibling, "10.4.1.2") {
				t.Error("no answer to the sibling")
			}
			if setuptest.Ping(t, stranger, "10.4.1.2") {
				t.Error("the networks are not kept apart")
			}
			if got := ask(t, n.Namespace, "192.0.2.1:8080"); got == "" {
				t.Error("no answer to the host")
			}
			if got := ask(t, outside, "192.0.2.1:8080"); got != tt.answer {
				t.Errorf("from outside the container sees %q, want %q", got, tt.answer)
			}
			if got := strings.Join(usedPorts(t), " "); got != "49153 8080" {
				t.Errorf("ports that nerdctl regards as used: %q", got)
			}
			for _, a := range all {
				must(t, a.del())
			}
			if tt.dir == ours {
				setuptest.Same(t, before, "DEL left traces")
			} else if left := setuptest.Dump(t); !strings.Contains(left, "br-0a0a0a0a0a0a") {
				t.Error("the reference has left no bridge behind: the test proves nothing")
			}
		})
	}
}

// TestPortList checks the list of host ports in the iptables chain in which nerdctl looks for them.
// The list must contain all ports, even if there are many, except ports for IPv6 only. If nft(8)
// saves and loads the rules, the list changes, and bvctl repair must restore it. If iptables saves
// and restores the rules, the list must stay as it is.
func TestPortList(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	before := setuptest.Dump(t)
	var ports []portMapping
	for i := range int32(40) {
		ports = append(ports, portMapping{HostPort: 2000 + i, ContainerPort: 80, Protocol: []string{"tcp", "udp"}[i%2]})
	}
	network := list("1.0.0", bridge.with(object{"isDefaultGateway": true, "ipam": twice}), portmap)
	a := attach(t, ours, "c1", network, append(ports, portMapping{HostPort: 3000, ContainerPort: 80, Protocol: "tcp", HostIP: "::"})...)
	a.mustAdd()
	if got := usedPorts(t); len(got) != 40 || slices.Contains(got, "3000") {
		t.Errorf("listed ports: %v", got)
	}
	rules := setuptest.Run(t, "iptables-nft", "-t", "nat", "-S")
	if !strings.Contains(rules, "-p udp -m udp -m multiport --dports 2001,") || !strings.Contains(rules, "bridgeveth/net/c1/eth0") {
		t.Errorf("iptables shows:\n%s", rules)
	}
	setuptest.Run(t, "sh", "-ec", "nft list table ip nat >/run/saved; nft delete table ip nat; nft -f /run/saved")
	refused(t, a.check(), 103, "host ports in chain CNI-HOSTPORT-DNAT")
	setuptest.Run(t, filepath.Join(reference, "bvctl"), "repair", "--cache-dir", "/run/cni-cache")
	must(t, a.check())
	if got := usedPorts(t); len(got) != 40 {
		t.Errorf("ports listed after saving, loading and repair: %v", got)
	}
	setuptest.Run(t, "sh", "-ec", "iptables-nft-save -t nat >/run/saved; iptables-nft -t nat -F; iptables-nft -t nat -X; iptables-nft-restore </run/saved")
	setuptest.Run(t, "sh", "-ec", "for c in PREROUTING INPUT OUTPUT POSTROUTING; do nft delete chain ip nat $c; done") // iptables-nft-restore makes these chains
	must(t, a.check())
	must(t, a.del())
	setuptest.Same(t, before, "DEL left traces")
}

// TestBanner runs our program under each of its plugin names without CNI_* variables, and checks
// the text that it prints. nerdctl reads the version of the plugin firewall from this text.
func TestBanner(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	must(t, err)
	release := regexp.MustCompile(`containernetworking/plugins (v\S+)`).FindStringSubmatch(string(mod))[1]
	for _, name := range names {
		cmd := exec.Command(filepath.Join(ours, name))
		cmd.Env = []string{}
		var said bytes.Buffer
		cmd.Stderr = &said
		must(t, cmd.Run())
		first, _, _ := strings.Cut(said.String(), "\n")
		// The text after the plus sign must be valid build metadata, which does not count when
		// versions are compared (semver.org, items 9 and 10).
		if !regexp.MustCompile("^CNI " + name + " plugin " + regexp.QuoteMeta(release) + `\+bridgeveth(\.[0-9A-Za-z-]+)+$`).MatchString(first) {
			t.Errorf("%s prints %q, want the release of the reference plugin, %s", name, first, release)
		}
	}
}
