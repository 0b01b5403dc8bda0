package dropin

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// onTwo prepares the attachments of a container to two networks of nerdctl, as eth0 and eth1. A
// runtime passes a container's host ports, bandwidth limits and MAC address to both networks.
func onTwo(t testing.TB, dir string) (one, two *attachment) {
	t.Helper()
	setuptest.Container(t, "c1")
	limits := object{"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000}
	for i, network := range []object{
		nerdctlNetwork("one", "br-0a0a0a0a0a0a", "10.4.1.0/24", "10.4.1.1"), nerdctlNetwork("two", "br-0b0b0b0b0b0b", "10.4.2.0/24", "10.4.2.1"),
	} {
		plugin := network["plugins"].([]object)[0]
		plugin["capabilities"] = object{"bandwidth": true, "mac": true}
		a := attach(t, dir, "c1", network, web, portMapping{HostPort: 5353, ContainerPort: 53, Protocol: "udp", HostIP: "192.0.2.1"})
		a.runtime.IfName = []string{"eth0", "eth1"}[i]
		a.runtime.CapabilityArgs["bandwidth"] = limits
		a.runtime.CapabilityArgs["mac"] = "02:00:5e:00:53:01"
		if one == nil {
			one = a
		} else {
			two = a
		}
	}
	return one, two
}

// TestTwoNetworks checks a container on two networks, for which the runtime passes the same host
// ports. ADD must succeed for both networks, as with the reference plugins. The port must answer as
// long as one of the networks is attached, whichever is detached first. At the end, nothing may be
// left.
func TestTwoNetworks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, dir string }{{"reference", reference}, {"ours", ours}} {
		for _, order := range []string{"the first goes first", "the last goes first"} {
			t.Run(tt.name+", "+order, func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				before := setuptest.Dump(t)
				one, two := onTwo(t, tt.dir)
				serve(t, one.container(), 80)
				answers := func(when string, want bool) {
					t.Helper()
					for _, address := range []string{"192.0.2.1:8080", "127.0.0.1:8080"} {
						if got := ask(t, n.Namespace, address); (got != "") != want {
							t.Errorf("%s: %s answers %q", when, address, got)
						}
					}
				}
				setuptest.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "lo")
				one.mustAdd()
				two.mustAdd()
				answers("on both networks", true)
				must(t, one.check())
				must(t, two.check())
				first, last := one, two
				if order == "the last goes first" {
					first, last = two, one
				}
				must(t, first.del())
				answers("on one network", true)
				must(t, last.check())
				must(t, last.del())
				answers("on none", false)
				setuptest.Run(t, "ip", "addr", "del", "192.0.2.1/24", "dev", "lo")
				if tt.dir == ours {
					setuptest.Same(t, before, "DEL left traces")
				}
			})
		}
	}
}

// TestTwoNetworksAtOnce attaches and detaches the two networks of a container in parallel, as
// go-cni does. It checks that the host port answers in between, and that nothing is left.
func TestTwoNetworksAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.outside()
	c := setuptest.Container(t, "c1")
	must(t, os.Mkdir("/run/net.d", 0o755))
	for _, network := range []object{
		nerdctlNetwork("one", "br-0a0a0a0a0a0a", "10.4.1.0/24", "10.4.1.1"), nerdctlNetwork("two", "br-0b0b0b0b0b0b", "10.4.2.0/24", "10.4.2.1"),
	} {
		b, err := json.Marshal(network)
		must(t, err)
		must(t, os.WriteFile("/run/net.d/"+network["name"].(string)+".conflist", b, 0o600))
	}
	before := setuptest.Dump(t)
	serve(t, c, 8000)
	both := func(verb string) {
		t.Helper()
		setuptest.Run(t, "sh", "-c", fmt.Sprintf(`export NETCONFPATH=/run/net.d CNI_PATH=%s
			export CAP_ARGS='{"portMappings": [{"hostPort": 8080, "containerPort": 8000, "protocol": "tcp"}]}'
			CNI_IFNAME=eth0 %[2]s/cnitool %[3]s one /run/netns/c1 & first=$!
			CNI_IFNAME=eth1 %[2]s/cnitool %[3]s two /run/netns/c1 && wait $first`, ours, reference, verb))
	}
	for range 10 {
		both("add")
		if ask(t, n.Namespace, "192.0.2.1:8080") == "" {
			t.Error("the port does not answer")
		}
		both("check")
		both("del")
		setuptest.Same(t, before, "DEL left traces")
	}
}

// TestTwoNetworksReported checks a container that has the same host ports on two networks. bvctl
// inspect must show which interface receives the packets. After a flush, bvctl repair must restore
// the rules of both networks.
func TestTwoNetworksReported(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	outside := n.outside()
	one, two := onTwo(t, ours)
	serve(t, one.container(), 80)
	one.mustAdd()
	two.mustAdd()
	inspect := func() map[string]string {
		t.Helper()
		var found []struct {
			Interface string
			HostPorts []string
		}
		must(t, json.Unmarshal([]byte(setuptest.Run(t, filepath.Join(reference, "bvctl"), "inspect", "-o", "json")), &found))
		ports := map[string]string{}
		for _, a := range found {
			ports[a.Interface] = strings.Join(a.HostPorts, ", ")
		}
		return ports
	}
	wantHostPorts := func(when string, want map[string]string) {
		t.Helper()
		got := inspect()
		for name, ports := range want {
			if got[name] != ports {
				t.Errorf("%s: inspect says of %s: %q, want %q", when, name, got[name], ports)
			}
		}
	}
	serves := "tcp *:8080, udp 192.0.2.1:5353"
	waits := func(server, network string) string {
		by := " (served by " + server + " of network " + network + ")"
		return "tcp *:8080" + by + ", udp 192.0.2.1:5353" + by
	}
	wantHostPorts("after ADD", map[string]string{"eth0": serves, "eth1": waits("eth0", "one")})
	setuptest.Run(t, "sh", "-ec", "nft list table ip bridgeveth >/run/saved; nft delete table ip bridgeveth; nft -f /run/saved")
	wantHostPorts("after a save and a load", map[string]string{"eth0": serves, "eth1": waits("eth0", "one")})
	must(t, two.check())

	setuptest.Run(t, "nft", "flush", "map", "ip", "bridgeveth", "ports_waiting")
	const behind = "host port tcp *:8080 to the container, behind interface eth0 of network one that serves it: is false"
	refused(t, two.check(), 103, behind)
	if out, err := exec.Command(filepath.Join(reference, "bvctl"), "doctor", "--cache-dir", "/run/cni-cache").CombinedOutput(); err == nil || !strings.Contains(string(out), behind) {
		t.Errorf("the doctor says, with error %v:\n%s", err, out)
	}
	setuptest.Run(t, "nft", "flush", "map", "ip", "bridgeveth", "ports")
	refused(t, one.check(), 103, "host port tcp *:8080 to the container: is false")
	setuptest.Run(t, "nft", "flush", "ruleset")
	out, err := exec.Command(filepath.Join(reference, "bvctl"), "repair", "--cache-dir", "/run/cni-cache").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, one.check())
	must(t, two.check())
	if ask(t, outside, "192.0.2.1:8080") == "" {
		t.Errorf("the port does not answer after repair:\n%s", out)
	}
	serving := map[string]string{"eth0": serves, "eth1": waits("eth0", "one")}
	if strings.Contains(inspect()["eth0"], "served by") { // the result depends on which network was repaired first
		serving = map[string]string{"eth1": serves, "eth0": waits("eth1", "two")}
	}
	wantHostPorts("after repair", serving)
	must(t, one.del())
	wantHostPorts("after the DEL of the first", map[string]string{"eth1": serves})

	// As long as one of the two networks is attached, another container must not get the host port.
	setuptest.Container(t, "c2")
	other := attach(t, ours, "c2", nerdctlNetwork("two", "br-0b0b0b0b0b0b", "10.4.2.0/24", "10.4.2.1"), web)
	_, err = other.add()
	refused(t, err, 101, "host port tcp *:8080 is taken by container c1, interface eth1, of network two")
	must(t, other.del())
	must(t, two.del())
}
