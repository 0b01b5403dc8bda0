// Package dropin tests network configurations that name reference plugins. libcni runs each
// configuration twice: with the reference plugins, and with our plugins under the same names.
package dropin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// names are the names of the reference plugins that our program replaces.
var names = []string{"bridge", "host-local", "portmap", "firewall", "loopback"}

// These are folders with all plugins that the configurations need. The folder reference has the
// reference plugins. The folder ours has our plugins instead of the reference plugins that we
// replace. The folders kept and linked have the same plugins as the folder ours. Their subfolders
// "reference" also have the replaced reference plugins. Our plugins in the folder linked are links
// to a program in another folder, as in the Debian package.
var reference, ours, kept, linked string

func TestMain(m *testing.M) {
	status := 1
	defer func() { os.Exit(status) }()
	dir, err := os.MkdirTemp("", "bridgeveth-dropin-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	status = m.Run()
}

func build(dir string) error {
	reference, ours, kept, linked = filepath.Join(dir, "reference"), filepath.Join(dir, "ours"), filepath.Join(dir, "kept"), filepath.Join(dir, "linked")
	for _, d := range []string{reference, ours, filepath.Join(kept, "reference"), filepath.Join(linked, "reference")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	others := []string{"tuning", "ptp"}
	if err := harness.Build(reference, slices.Concat(names, others, []string{"bridgeveth", "bvctl", "cnitool"})...); err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, os.Link(filepath.Join(reference, "bridgeveth"), filepath.Join(ours, name)),
			os.Link(filepath.Join(reference, "bridgeveth"), filepath.Join(kept, name)),
			os.Link(filepath.Join(reference, name), filepath.Join(kept, "reference", name)),
			os.Symlink(filepath.Join(reference, "bridgeveth"), filepath.Join(linked, name)),
			os.Link(filepath.Join(reference, name), filepath.Join(linked, "reference", name)))
	}
	for _, name := range others {
		errs = append(errs, os.Link(filepath.Join(reference, name), filepath.Join(ours, name)), os.Link(filepath.Join(reference, name), filepath.Join(kept, name)),
			os.Link(filepath.Join(reference, name), filepath.Join(linked, name)))
	}
	return errors.Join(errs...)
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

// portMapping is a host port as nerdctl passes it to a plugin. The JSON keys begin with capital
// letters, because nerdctl uses a type of go-cni that has no JSON tags.
type portMapping struct {
	HostPort, ContainerPort int32
	Protocol, HostIP        string
}

// node is a host that the test makes. The policy of FORWARD is DROP.
type node struct {
	*setup.Host
	t testing.TB
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{setuptest.EnterHost(t), t}
	setuptest.DropForward(t, "iptables-nft", "ip6tables-nft")
	setuptest.Run(t, "nft", "add", "table", "ip", "nat") // this table belongs to iptables, so DEL must keep it
	return n
}

// outside makes a network namespace beyond the host. This namespace reaches the host at 192.0.2.1.
func (n *node) outside() *setup.Namespace {
	n.t.Helper()
	out := setuptest.Container(n.t, "outside")
	ends := []setup.End{
		{Namespace: n.Namespace, Interface: "uplink", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		{Namespace: out, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}},
	}
	if err := setup.Join(ends[0], ends[1]); err != nil {
		n.t.Fatal(err)
	}
	return out
}

// attachment is the attachment of one interface of a container, as libcni needs it for the calls of
// a runtime.
type attachment struct {
	t       testing.TB
	list    *libcni.NetworkConfigList
	runtime *libcni.RuntimeConf
	cni     *libcni.CNIConfig
}

// attach returns an attachment, but does not call ADD. The calls of the attachment run the plugins
// in dir with the given network configuration.
func attach(t testing.TB, dir, container string, list object, ports ...portMapping) *attachment {
	t.Helper()
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := libcni.ConfListFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	a := &attachment{t, parsed, &libcni.RuntimeConf{
		ContainerID: container, NetNS: "/run/netns/" + container, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}}, CapabilityArgs: map[string]any{},
	}, libcni.NewCNIConfigWithCacheDir([]string{dir}, "/run/cni-cache", nil)}
	if len(ports) > 0 {
		a.runtime.CapabilityArgs["portMappings"] = ports
	}
	return a
}

// add runs ADD, and returns the result in the CNI version of the network configuration.
func (a *attachment) add() (object, error) {
	result, err := a.cni.AddNetworkList(context.Background(), a.list, a.runtime)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	decoded := object{}
	if err := errors.Join(result.PrintTo(&text), json.Unmarshal(text.Bytes(), &decoded)); err != nil {
		a.t.Fatal(err)
	}
	return decoded, nil
}

func (a *attachment) check() error {
	return a.cni.CheckNetworkList(context.Background(), a.list, a.runtime)
}

// del runs DEL without a namespace, as nerdctl does.
func (a *attachment) del() error {
	gone := *a.runtime
	gone.NetNS = ""
	return a.cni.DelNetworkList(context.Background(), a.list, &gone)
}

// must fails the test if there is an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (a *attachment) mustAdd() object {
	a.t.Helper()
	result, err := a.add()
	must(a.t, err)
	return result
}

// refused fails the test unless err is a CNI error with this code and with the text want in its
// message.
func refused(t testing.TB, err error, code uint, want string) {
	t.Helper()
	said := &types.Error{}
	if !errors.As(err, &said) || said.Code != code || !strings.Contains(said.Msg, want) {
		t.Errorf("got %v, want code %d and %q", err, code, want)
	}
}

// serve starts a TCP server in a network namespace. The server answers with the client's address.
func serve(t testing.TB, ns *setup.Namespace, port int) {
	t.Helper()
	must(t, ns.Do(func() error {
		l, err := net.Listen("tcp", fmt.Sprint(":", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprint(c, host)
				c.Close()
			}
		}()
		return nil
	}))
}

// ask opens a TCP connection to a server (see serve). It returns the client's address as the server
// sees it, or "" if no answer comes.
func ask(t testing.TB, from *setup.Namespace, address string) (answer string) {
	t.Helper()
	must(t, from.Do(func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return nil //nolint:nilerr // no answer
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second)) // fails only on a closed connection
		b, _ := io.ReadAll(c)                          // on an error, the answer is empty
		answer = string(b)
		return nil
	}))
	return answer
}

// call runs one plugin directly, without libcni. It returns the plugin's output, decoded from JSON.
func call(t testing.TB, program, verb, container string, conf object) (object, error) {
	t.Helper()
	b, err := json.Marshal(object{"cniVersion": "1.1.0", "name": "net", "type": filepath.Base(program)}.with(conf))
	must(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+container, "CNI_NETNS=/run/netns/"+container,
		"CNI_IFNAME=eth0", "CNI_PATH="+filepath.Dir(program))
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	answer := object{}
	if len(out) > 0 && json.Unmarshal(out, &answer) != nil {
		t.Fatalf("%s %s prints %q", program, verb, out)
	}
	if err != nil {
		said := &types.Error{}
		if json.Unmarshal(out, said) != nil {
			t.Fatalf("%s %s: %v, output %q", program, verb, err, out)
		}
		return nil, said
	}
	return answer, nil
}
