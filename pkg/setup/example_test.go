package setup_test

import (
	"fmt"
	"log"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// This example connects two network namespaces by a veth pair, without a bridge.
func ExampleJoin() {
	enterHost()
	left, right := namespace("left"), namespace("right")
	err := setup.Join(
		setup.End{Namespace: left, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.1.1/24")}},
		setup.End{Namespace: right, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.1.2/24")}},
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("left reaches right:", reaches(left, "10.1.1.2"))
	// Output: left reaches right: true
}

// Three containers share a bridge on a host whose FORWARD policy is DROP, as dockerd sets it. They
// can still reach each other, because AttachPort adds the rule that accepts the bridge's packets.
func ExampleHost_AttachPort() {
	host := enterHost()
	if err := exec.Command("iptables", "-P", "FORWARD", "DROP").Run(); err != nil {
		log.Fatal(err)
	}
	network := &setup.Network{
		Bridge: "br0", IPv4: true,
		Gateways: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/24")},
		Forward:  setup.ForwardAuto, // with ForwardNone, the policy DROP would drop the packets
	}
	var ports []*setup.Port
	for _, address := range []string{"10.88.0.2/24", "10.88.0.3/24", "10.88.0.4/24"} {
		name := fmt.Sprintf("c%d", len(ports)+1)
		p := &setup.Port{
			Attachment: setup.Attachment{Network: "net", Container: name, Interface: "eth0"},
			Container:  namespace(name),
			Network:    network,
			Addresses:  []netip.Prefix{netip.MustParsePrefix(address)},
		}
		if _, err := host.AttachPort(p); err != nil {
			log.Fatal(err)
		}
		ports = append(ports, p)
	}
	for _, p := range ports[1:] {
		fmt.Println("c1 reaches", p.Attachment.Container+":", reaches(ports[0].Container, p.Addresses[0].Addr().String()))
	}
	for _, p := range ports { // the last call deletes the bridge and the rule
		if err := host.DetachPort(p.Attachment, network.Bridge); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// c1 reaches c2: true
	// c1 reaches c3: true
}

// namespace creates a network namespace that "ip netns" lists. To open an existing namespace, call
// setup.OpenNamespace with a path such as "/proc/4711/ns/net". The library of the CNI plugins
// returns this path from the method Path of its type ns.NetNS.
func namespace(name string) *setup.Namespace {
	n, err := setup.EnsureNamed(name)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

// reaches reports whether an address answers an echo request from a namespace.
func reaches(from *setup.Namespace, to string) bool { return setuptest.Ping(example{}, from, to) }

// enterHost moves the example into a new network namespace and returns it as the host. It needs
// root.
func enterHost() *setup.Host { return setuptest.EnterHost(example{}) }

// example is a testing.TB for the examples. A failure ends the process.
type example struct{ testing.TB }

func (example) Helper()                        {}
func (example) Cleanup(func())                 {}
func (example) Skip(a ...any)                  { log.Fatal(a...) }
func (example) Fatal(a ...any)                 { log.Fatal(a...) }
func (example) Fatalf(format string, a ...any) { log.Fatalf(format, a...) }
