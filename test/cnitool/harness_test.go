// Package cnitool tests what the plugins do for each verb, which packets pass, and what remains on
// the host. The tests call the plugins by cnitool or directly.
package cnitool

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// programs is the folder with the executable files of cnitool, bvctl and the plugins.
var programs string

func TestMain(m *testing.M) {
	harness.Main(m, &programs, "bridgeveth", "bvctl", "cnitool", "bridge", "host-local", "static", "dhcp", "firewall", "portmap", "sbr", "tuning")
}

// object is a JSON object.
type object map[string]any

// with returns a copy of o that also has the keys of extra.
func (o object) with(extra object) object {
	all := object{}
	for _, from := range []object{o, extra} {
		for key, value := range from {
			all[key] = value
		}
	}
	return all
}

// dual is the configuration of a dual-stack network with masquerade.
var dual = object{
	"type": "bridgeveth", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true,
	"ipam": object{"type": "ipam-simple", "ranges": [][]object{
		{{"subnet": "10.88.0.0/24"}}, {{"subnet": "fd88::/64"}},
	}},
}

// single is the configuration of an IPv4 network with masquerade.
var single = dual.with(object{"ipam": object{"type": "ipam-simple", "subnet": "10.88.0.0/24"}})

// node is a host that the test makes, with the configuration of one network.
type node struct {
	*setup.Host
	t   testing.TB
	env []string // additional environment of cnitool
}

// newNode makes a host for the test, and writes the configuration of its network. In each of the
// given flavours of iptables (nft, legacy), the policy of FORWARD is DROP.
func newNode(t testing.TB, plugin object, flavours ...string) *node {
	t.Helper()
	n := &node{Host: setuptest.EnterHost(t), t: t}
	for _, f := range flavours {
		setuptest.DropForward(t, "iptables-"+f, "ip6tables-"+f)
	}
	n.configure(plugin)
	return n
}

// configure writes the network's configuration to the folder that cnitool reads.
func (n *node) configure(plugin object) {
	n.t.Helper()
	list := object{"cniVersion": "1.1.0", "name": "net", "plugins": []object{plugin}}
	b, err := json.Marshal(list)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.MkdirAll("/run/net.d", 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile("/run/net.d/10-net.conflist", b, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// cnitool runs the program cnitool for the node's network. The program identifies a container by
// the path of its namespace.
func (n *node) cnitool(verb string, c *setup.Namespace) error { return n.cnitoolOn("net", verb, c) }

// cnitoolOn runs cnitool for the network with the given name.
func (n *node) cnitoolOn(network, verb string, c *setup.Namespace) error {
	path := "/run/netns/none"
	if c != nil {
		path = c.Path
	}
	cmd := exec.Command(filepath.Join(programs, "cnitool"), verb, network, path)
	cmd.Env = append(os.Environ(), "NETCONFPATH=/run/net.d", "CNI_PATH="+programs)
	cmd.Env = append(cmd.Env, n.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cnitool %s: %w: %s", verb, err, out)
	}
	return nil
}

// must runs cnitool for each container, and fails the test if a call fails.
func (n *node) must(verb string, containers ...*setup.Namespace) {
	n.t.Helper()
	for _, c := range containers {
		if err := n.cnitool(verb, c); err != nil {
			n.t.Fatal(err)
		}
	}
}

// containers makes containers c1, c2 and so on, without attaching them.
func (n *node) containers(count int) (all []*setup.Namespace) {
	n.t.Helper()
	for i := range count {
		all = append(all, setuptest.Container(n.t, fmt.Sprintf("c%d", i+1)))
	}
	return all
}

// outside makes a namespace beyond the host, with the addresses 192.0.2.2 and 2001:db8::2. If the
// parameter routed is true, this namespace also gets routes to the containers.
func (n *node) outside(routed bool) *setup.Namespace {
	n.t.Helper()
	out := setuptest.Container(n.t, "outside")
	ends := []setup.End{
		{Namespace: n.Namespace, Interface: "uplink", Addresses: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64"),
		}},
		{Namespace: out, Interface: "eth0", Addresses: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64"),
		}},
	}
	if err := setup.Join(ends[0], ends[1]); err != nil {
		n.t.Fatal(err)
	}
	if routed {
		setuptest.In(n.t, out, "ip", "route", "add", "10.88.0.0/24", "via", "192.0.2.1")
		setuptest.In(n.t, out, "ip", "route", "add", "fd88::/64", "via", "2001:db8::1")
	}
	return out
}

// call is a call of a plugin without cnitool.
type call struct {
	verb, container, netns, ifname string
	conf                           object
	program                        string   // "" means bridgeveth
	arguments                      []string // of the program; plugins have none
	path                           string   // CNI_PATH; "" means programs
	args                           string   // CNI_ARGS
	before                         []string // a command with arguments that runs the plugin, such as strace
}

// answer is the output of a plugin.
type answer struct {
	stdout, stderr []byte
	err            error // set if the exit status is not 0
}

// run calls the plugin.
func (c call) run(t testing.TB) (a answer) {
	t.Helper()
	cmd := c.command(t)
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	a.err = cmd.Run()
	a.stdout, a.stderr = out.Bytes(), trouble.Bytes()
	var exit *exec.ExitError
	if a.err != nil && !errors.As(a.err, &exit) {
		t.Fatal(a.err)
	}
	return a
}

// traced calls the plugin under ptrace(2). Before each system call of the plugin, it calls the
// function in the parameter before. If this function returns true, the plugin continues. Otherwise,
// traced kills the plugin.
func (c call) traced(t testing.TB, before func(ptrace.Call) bool) (a answer) {
	t.Helper()
	cmd := c.command(t)
	dir := t.TempDir()
	var files []*os.File
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	_, err := io.Copy(files[0], cmd.Stdin)
	if err == nil {
		_, err = files[0].Seek(0, io.SeekStart)
	}
	if err != nil {
		t.Fatal(err)
	}
	status, err := ptrace.Run(cmd.Args, cmd.Env, files, before)
	if err != nil {
		t.Fatal(err)
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		a.err = fmt.Errorf("%s ended with status %#x", cmd.Path, status)
	}
	if a.stdout, err = os.ReadFile(files[1].Name()); err == nil {
		a.stderr, err = os.ReadFile(files[2].Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (c call) command(t testing.TB) *exec.Cmd {
	t.Helper()
	program := c.program
	if program == "" {
		program = "bridgeveth"
	}
	argv := slices.Concat(c.before, []string{filepath.Join(programs, program)}, c.arguments)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "CNI_PATH="+cmp.Or(c.path, programs), "CNI_COMMAND="+c.verb,
		"CNI_CONTAINERID="+c.container, "CNI_NETNS="+c.netns, "CNI_IFNAME="+c.ifname, "CNI_ARGS="+c.args)
	conf, err := json.Marshal(object{"cniVersion": "1.1.0", "name": "net"}.with(c.conf))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = bytes.NewReader(conf)
	return cmd
}

// on returns a call of the plugin with a verb, for the interface eth0 of container number i.
func on(verb string, i int, conf object) call {
	name := fmt.Sprintf("c%d", i)
	return call{verb: verb, container: name, netns: "/run/netns/" + name, ifname: "eth0", conf: conf}
}

// ok fails the test unless the plugin succeeded.
func (a answer) ok(t testing.TB) answer {
	t.Helper()
	if a.err != nil {
		t.Fatalf("%v: %s%s", a.err, a.stdout, a.stderr)
	}
	return a
}

// bvctlCall returns a call of bvctl on the test's host.
func bvctlCall(args ...string) call {
	return call{program: "bvctl", arguments: append(args, "--conf-dir", "/run/net.d")}
}

// failure is a CNI error.
type failure struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details"`
}

// failed decodes the error on standard output. It fails the test if the plugin has succeeded or
// printed anything else.
func (a answer) failed(t testing.TB) (f failure) {
	t.Helper()
	if a.err == nil {
		t.Fatalf("the plugin succeeded: %s", a.stdout)
	}
	decoder := json.NewDecoder(bytes.NewReader(a.stdout))
	if err := decoder.Decode(&f); err != nil {
		t.Fatalf("standard output is no CNI error: %v: %q, standard error: %q", err, a.stdout, a.stderr)
	}
	if rest := strings.TrimSpace(string(a.stdout[decoder.InputOffset():])); rest != "" {
		t.Fatalf("more than one object on standard output: %s", a.stdout)
	}
	return f
}
