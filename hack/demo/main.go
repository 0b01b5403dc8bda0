// Demo shows why containers on one bridge cannot reach each other on a host with Docker, and how
// bridgeveth fixes this. "make demo" runs Demo in temporary network and mount namespaces, so the host
// does not change.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

const bridge = "br0"

func main() {
	runtime.LockOSThread() // setns(2) changes the network namespace of a single thread
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: demo PLUGINS CNITOOL; run make demo")
		os.Exit(2)
	}
	d := &demo{plugins: absolute(os.Args[1]), cnitool: absolute(os.Args[2])}
	for _, chapter := range []func() error{d.prepare, d.pair, d.blocked, d.cure, d.network, d.clean} {
		if err := chapter(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			os.Exit(1)
		}
	}
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

// demo is a simulated host: network and mount namespaces of its own.
type demo struct {
	plugins, cnitool string
	host             *setup.Host
	before           string
}

// prepare makes a host with the settings that Docker makes: the policy of FORWARD is DROP, and
// br_netfilter is on.
func (d *demo) prepare() (err error) {
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	if d.host, err = setup.CurrentHost(); err != nil {
		return err
	}
	for _, command := range []string{
		"ip link set lo up", "echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables", "iptables -P FORWARD DROP",
	} {
		if _, err := run(command); err != nil {
			return err
		}
	}
	d.before, err = d.state()
	return err
}

// pair connects two network namespaces by a veth pair.
func (d *demo) pair() error {
	title("1. Connect two containers by a veth pair",
		"A container has a network namespace: its own interfaces, addresses and routes.",
		"A veth pair is a virtual cable: a packet that enters one end leaves the other end.")
	left, right, err := d.twoNamespaces()
	if err != nil {
		return err
	}
	defer left.Close()
	defer right.Close()
	step("create two namespaces", "ip netns add left; ip netns add right")
	err = setup.Join(
		setup.End{Namespace: left, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}},
		setup.End{Namespace: right, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}},
	)
	if err != nil {
		return err
	}
	step("create a veth pair with one end in each namespace", "ip link add eth0 netns left type veth peer name eth0 netns right")
	step("give each end an address", "ip -n left addr add 10.9.0.1/24 dev eth0; ip -n left link set eth0 up   # the same in right")
	if err := expectPing("left", "10.9.0.2", true); err != nil {
		return err
	}
	return errors.Join(setup.DeleteNamed("left"), setup.DeleteNamed("right"))
}

func (d *demo) twoNamespaces() (left, right *setup.Namespace, err error) {
	if left, err = setup.EnsureNamed("left"); err != nil {
		return nil, nil, err
	}
	if right, err = setup.EnsureNamed("right"); err != nil {
		left.Close()
		return nil, nil, err
	}
	return left, right, nil
}

// blocked attaches three containers to a bridge without the FORWARD rules, so that they cannot
// reach each other.
func (d *demo) blocked() error {
	title("2. Three containers on one bridge: FORWARD drops their packets",
		"A bridge is a virtual switch: each container is connected to one of its ports.",
		"Docker sets the policy of the iptables chain FORWARD to DROP.",
		"With br_netfilter, the kernel sends bridged packets through this chain too.")
	step("set the policy, as Docker does", "iptables -P FORWARD DROP")
	for _, c := range []string{"red", "green", "blue"} {
		ns, err := setup.EnsureNamed(c)
		if err != nil {
			return err
		}
		ns.Close()
		if err := d.cni("add", c, "none"); err != nil {
			return err
		}
		step("attach container "+c+` with "forward": "none"`, "cnitool add demo /run/netns/"+c)
	}
	fmt.Println("\n   The same by hand, for each container:")
	for _, c := range []string{
		"ip link add br0 type bridge; ip link set br0 up                     # once",
		"ip link add vethred master br0 type veth peer name eth0 netns red; ip link set vethred up",
		"ip -n red addr add 10.1.0.2/24 dev eth0; ip -n red link set eth0 up; ip -n red route add default via 10.1.0.1",
	} {
		fmt.Println("     $", c)
	}
	if err := show("all ports of the bridge are up:", "ip -br link show master br0"); err != nil {
		return err
	}
	if err := expectPing("red", "10.1.0.3", false); err != nil {
		return err
	}
	return show("the policy counts the dropped packet:", "iptables -vS FORWARD")
}

// cure adds the FORWARD rules, so that the containers reach each other.
func (d *demo) cure() error {
	title("3. The fix: rules in FORWARD that accept the packets of the bridge",
		"The rules are in their own chain. FORWARD jumps to this chain after Docker's chains and before all other rules.",
		`bridgeveth adds the rules at every ADD, unless the configuration has "forward": "none".`)
	if err := d.host.EnsureForward(bridge, unix.AF_INET); err != nil {
		return err
	}
	if err := show("the rules, a fixed number for each bridge:", "iptables -S FORWARD; iptables -S BRIDGEVETH-FORWARD"); err != nil {
		return err
	}
	for _, to := range []string{"10.1.0.3", "10.1.0.4", "10.1.0.1"} {
		if err := expectPing("red", to, true); err != nil {
			return err
		}
	}
	return nil
}

// network prints the addresses and routes of a container, and the gateway address of the bridge.
func (d *demo) network() error {
	title("4. Look into a container", "ipam-simple has leased an address. The default route leads to the bridge.")
	if err := show("addresses and routes of red:", "ip -n red -br addr; ip -n red route"); err != nil {
		return err
	}
	return show("the bridge has the gateway address:", "ip -br addr show br0")
}

// clean detaches and deletes the containers. It returns an error if anything is left on the host.
func (d *demo) clean() error {
	title("5. Delete the containers", "DEL removes everything that ADD made. The last DEL also removes the rules and the bridge.")
	for _, c := range []string{"red", "green", "blue"} {
		if err := d.cni("del", c, "none"); err != nil {
			return err
		}
		step("detach container "+c, "cnitool del demo /run/netns/"+c)
		if err := setup.DeleteNamed(c); err != nil {
			return err
		}
	}
	after, err := d.state()
	if err != nil {
		return err
	}
	if after != d.before {
		return fmt.Errorf("something is left; before:\n%s\nafter:\n%s", d.before, after)
	}
	fmt.Println("\n   Links, addresses, routes and rules are the same as before step 1.")
	return nil
}

// state returns the links, addresses, routes and rules of the host as text.
func (d *demo) state() (string, error) {
	return run("ip -o link; ip -o addr; ip route; iptables -S")
}

// cni runs cnitool with a configuration for a container. forward is the value of the key
// "forward".
func (d *demo) cni(verb, container, forward string) error {
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "demo",
		"plugins": []any{map[string]any{
			"type": "bridgeveth", "bridge": bridge, "isDefaultGateway": true, "forward": forward,
			"ipam": map[string]any{"type": "ipam-simple", "subnet": "10.1.0.0/24"},
		}},
	})
	if err == nil {
		err = os.WriteFile("/run/demo.conflist", conf, 0o600)
	}
	if err != nil {
		return err
	}
	cmd := exec.Command(d.cnitool, verb, "demo", "/run/netns/"+container)
	cmd.Env = append(os.Environ(), "NETCONFPATH=/run", "CNI_PATH="+d.plugins)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

func title(heading string, words ...string) {
	fmt.Printf("\n%s\n%s\n", heading, strings.Repeat("=", len(heading)))
	for _, w := range words {
		fmt.Println(w)
	}
	fmt.Println()
}

func step(what, command string) { fmt.Printf(" * %s\n     $ %s\n", what, command) }

// show prints a description and a command, runs the command, and prints its output.
func show(what, command string) error {
	out, err := run(command)
	fmt.Printf("\n   %s\n     $ %s\n", what, command)
	for line := range strings.Lines(out) {
		fmt.Print("       ", line)
	}
	return err
}

// expectPing runs ping from a container and prints whether an answer came. It returns an error if
// this differs from want.
func expectPing(from, to string, want bool) error {
	command := fmt.Sprintf("ip netns exec %s ping -c 1 -W 1 %s", from, to)
	_, err := run(command)
	outcome := map[bool]string{true: "answered", false: "NO ANSWER"}
	fmt.Printf("\n   ping from %s to %s: %s\n     $ %s\n", from, to, outcome[err == nil], command)
	if (err == nil) != want {
		return fmt.Errorf("ping from %s to %s: %s, expected %s (%w)", from, to, outcome[err == nil], outcome[want], err)
	}
	return nil
}

// run runs a shell command and returns its output.
func run(line string) (string, error) {
	cmd := exec.Command("sh", "-c", line)
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", line, err, trouble.String())
	}
	return out.String(), nil
}
