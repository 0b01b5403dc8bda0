package ipamsimple

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// network returns a configuration with a value for the key "ipam".
func network(ipam string) string {
	return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "bridgeveth", "bridge": "br0", "ipam": %s}`, ipam)
}

// pluginVar is an environment variable. If it is set, the test's executable file runs as the
// plugin, so that a test can start a verb in a separate process.
const pluginVar = "IPAM_SIMPLE_TEST_PLUGIN"

// alone is ipam-simple as a separate program, which has no information about links.
var alone Plugin

func TestMain(m *testing.M) {
	if os.Getenv(pluginVar) != "" {
		os.Exit(plugin.Main(plugin.IPAMSimple, plugin.Version, Verbs()))
	}
	os.Exit(m.Run())
}

// call runs a verb in a process of its own and returns its output.
func call(t *testing.T, verb, container, conf string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), pluginVar+"=1", "CNI_COMMAND="+verb, "CNI_CONTAINERID="+container, "CNI_IFNAME=eth0",
		"CNI_NETNS=/run/netns/none", "CNI_PATH=/opt/cni/bin")
	cmd.Stdin = strings.NewReader(conf)
	var errout bytes.Buffer
	cmd.Stderr = &errout
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || errout.Len() > 0 {
		t.Fatalf("%s: %v: %s", verb, err, errout.String())
	}
	return string(out)
}

// dual returns a configuration with two sets of ranges, and with all keys that affect a result. The
// leases are in dir.
func dual(version, dir string) string {
	return fmt.Sprintf(`{"cniVersion": %q, "name": "net", "type": "any", "somebody": "else's", "ipam": {
		"type": "ipam-simple", "dataDir": %q, "subnet": "10.1.0.0/29", "ranges": [[{"subnet": "fd00::/64"}]],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.6", "mtu": 1400, "advmss": 1300, "priority": 7, "table": 0, "scope": 253}]
	}}`, version, dir)
}

// TestResult checks that the result in each CNI version is equal to a file in testdata.
func TestResult(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			got := call(t, "ADD", "c", dual(version, t.TempDir()))
			file := filepath.Join("testdata", "result-"+version+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// args returns the arguments of a call for the interface eth0 of a container. Here a plain file
// stands for the container's namespace, because the file also has a device and an inode.
func args(t *testing.T, container, conf string) *skel.CmdArgs {
	t.Helper()
	netns := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return &skel.CmdArgs{ContainerID: container, IfName: "eth0", Netns: netns, StdinData: []byte(conf)}
}

// small returns a configuration whose range has size addresses, at most 5. The leases are in dir.
func small(dir string, size int) string {
	return network(fmt.Sprintf(`{"subnet": "10.1.0.0/29", "rangeEnd": "10.1.0.%d", "dataDir": %q}`, size+1, dir))
}

// add calls ADD and returns the addresses in the result.
func add(t *testing.T, a *skel.CmdArgs) (list []string) {
	t.Helper()
	r, err := alone.Add(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range r.IPs {
		list = append(list, ip.Address.String())
	}
	return list
}

// wantError fails the test unless err has this code and contains these words.
func wantError(t *testing.T, err error, code uint, words ...string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want code %d", err, code)
	}
	for _, word := range words {
		if !strings.Contains(e.Msg, word) {
			t.Errorf("%q is not in %q", word, e.Msg)
		}
	}
}

// withPrev returns the configuration for a CHECK, with these addresses in prevResult.
func withPrev(t *testing.T, conf string, addresses ...string) []byte {
	t.Helper()
	prev := &current.Result{CNIVersion: "1.1.0"}
	for _, a := range addresses {
		prev.IPs = append(prev.IPs, &current.IPConfig{Address: plugin.IPNet(netip.MustParsePrefix(a))})
	}
	var keys map[string]any
	if err := json.Unmarshal([]byte(conf), &keys); err != nil {
		t.Fatal(err)
	}
	keys["prevResult"] = prev
	data, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestAddPrintFails checks that no address stays leased if ADD cannot print its result.
func TestAddPrintFails(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	stdout := os.Stdout
	os.Stdout = full
	defer func() { os.Stdout = stdout }()
	conf := small(t.TempDir(), 1)
	wantError(t, alone.printAdd(args(t, "a", conf)), types.ErrIOFailure, "no space left on device")
	if got := add(t, args(t, "b", conf)); !cmp.Equal(got, []string{"10.1.0.2/29"}) {
		t.Errorf("the next container got %v", got)
	}
}

func TestAddRepeated(t *testing.T) {
	a := args(t, "c", dual("1.1.0", t.TempDir()))
	first, again := add(t, a), add(t, a)
	if diff := cmp.Diff(first, again); diff != "" || len(first) != 2 {
		t.Errorf("first %v (-first +again):\n%s", first, diff)
	}
}

func TestCheck(t *testing.T) {
	conf := small(t.TempDir(), 3)
	a := args(t, "c", conf)
	add(t, args(t, "other", conf)) // gets 10.1.0.2
	add(t, a)                      // gets 10.1.0.3
	for _, tt := range []struct {
		name string
		prev []string
		want []string
	}{
		{"as leased", []string{"10.1.0.3/29"}, nil},
		{"with an address of another plugin", []string{"192.0.2.1/24", "10.1.0.3/29"}, nil},
		{"none", nil, []string{"10.1.0.3: it is leased"}},
		{"the lease of another container", []string{"10.1.0.2/29"}, []string{"10.1.0.2: it is in prevResult", "10.1.0.3: it is leased"}},
		{"one address more", []string{"10.1.0.3/29", "10.1.0.4/29"}, []string{"10.1.0.4: it is in prevResult"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check := *a
			check.StdinData = withPrev(t, conf, tt.prev...)
			if err := alone.Check(&check); tt.want != nil {
				wantError(t, err, plugin.CodeDrift, tt.want...)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("without prevResult", func(t *testing.T) { wantError(t, alone.Check(a), 7, "prevResult") })
	t.Run("without a lease", func(t *testing.T) {
		if err := alone.Del(a); err != nil {
			t.Fatal(err)
		}
		a.StdinData = withPrev(t, conf, "10.1.0.3/29")
		wantError(t, alone.Check(a), plugin.CodeDrift, "no address is leased")
	})
	t.Run("without a store", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "none")
		a.StdinData = withPrev(t, small(dir, 3), "10.1.0.3/29")
		wantError(t, alone.Check(a), plugin.CodeDrift, "no address is leased")
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("CHECK made %s", dir)
		}
	})
}

// TestDel checks that DEL frees an address even if the ranges have changed or are invalid.
func TestDel(t *testing.T) {
	for _, ipam := range []string{
		`{"subnet": "10.1.0.0/29", "dataDir": %q}`,
		`{"dataDir": %q}`,
		`{"subnet": "ten", "ranges": 7, "routes": "x", "resolvConf": "/none", "unknown": 1, "dataDir": %q}`,
	} {
		dir := t.TempDir()
		a := args(t, "c", small(dir, 1))
		withProcess(t, a)
		add(t, a)
		wantError(t, alone.Status(a), plugin.CodeExhausted)
		del := *a
		del.Netns = ""
		del.StdinData = []byte(network(fmt.Sprintf(ipam, dir)))
		for range 2 {
			if err := alone.Del(&del); err != nil {
				t.Fatal(err)
			}
		}
		if err := alone.Status(a); err != nil {
			t.Errorf("%s: after DEL: %v", ipam, err)
		}
	}
}

func TestDelWithoutStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if err := alone.Del(args(t, "c", small(dir, 1))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("DEL made %s", dir)
	}
	wantError(t, alone.Del(args(t, "c", network(`{"dataDir": 7}`))), 7, "ipam.dataDir")
}

func TestGC(t *testing.T) {
	dir := t.TempDir()
	conf := small(dir, 3)
	collect := func(valid string) error {
		return alone.GC(&skel.CmdArgs{StdinData: []byte(fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "ipam": {"dataDir": %q}%s}`, dir, valid))})
	}
	for _, tt := range []struct {
		name, valid string
		left        string
	}{
		{"one", `, "cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]`, "b"},
		{"another interface", `, "cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth1"}]`, ""},
		{"none", `, "cni.dev/valid-attachments": []`, ""},
		{"null", `, "cni.dev/valid-attachments": null, "cni.dev/attachments": [{"containerID": "a", "ifname": "eth0"}]`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []string{"a", "b", "c"} {
				add(t, args(t, c, conf))
			}
			if err := collect(tt.valid); err != nil {
				t.Fatal(err)
			}
			if got := holders(t, dir); got != tt.left {
				t.Errorf("containers with leases: %q, want %q", got, tt.left)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		add(t, args(t, "a", conf))
		wantError(t, collect(""), 7, "cni.dev/valid-attachments")
		if got := holders(t, dir); got != "a" {
			t.Errorf("containers with leases: %q, want a", got)
		}
	})
}

// holders returns the container of each lease.
func holders(t *testing.T, dir string) string { return strings.Join(attached(t, dir), " ") }

// attached returns the container of each lease, sorted. A lease without a container is a sticky
// address that is kept for its pod.
func attached(t *testing.T, dir string) (list []string) {
	t.Helper()
	s, err := ipam.OpenExisting(dir, time.Second)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	leases, err := s.Leases("net")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		if l.Until.IsZero() {
			list = append(list, l.Container)
		}
	}
	slices.Sort(list)
	return list
}

// TestReclaim checks that ADD on a full network takes over the lease of a container whose namespace
// and link are gone, although the runtime has not called DEL.
func TestReclaim(t *testing.T) {
	conf := small(t.TempDir(), 2)
	ended, running, added := args(t, "ended", conf), args(t, "running", conf), args(t, "added", conf)
	withProcess(t, ended)
	withProcess(t, running)
	add(t, ended)
	add(t, running)
	_, err := alone.Add(added)
	wantError(t, err, plugin.CodeExhausted, "10.1.0.1-10.1.0.3 (2 of 2 leased)", "widen")
	wantError(t, alone.Status(added), plugin.CodeExhausted, "10.1.0.1-10.1.0.3 (2 of 2 leased)")

	if err := os.Remove(ended.Netns); err != nil {
		t.Fatal(err)
	}
	linked := Plugin{HasLink: func(a ipam.Attachment) bool {
		return a == ipam.Attachment{Network: "net", Container: "ended", Interface: "eth0"}
	}}
	_, err = linked.Add(added)
	wantError(t, err, plugin.CodeExhausted)

	if err := alone.Status(added); err != nil {
		t.Errorf("STATUS with a container that is gone: %v", err)
	}
	if got := add(t, added); !cmp.Equal(got, []string{"10.1.0.2/29"}) {
		t.Errorf("got %v, want the lease of the container that is gone", got)
	}
}

// withProcess gives a container a namespace that has a process: the namespace of the test.
func withProcess(t *testing.T, a *skel.CmdArgs) {
	t.Helper()
	if err := errors.Join(os.Remove(a.Netns), os.Symlink("/proc/self/ns/net", a.Netns)); err != nil {
		t.Fatal(err)
	}
}

// TestReclaimUnknownNamespace checks a lease whose ADD could not read the file of the namespace.
// Such a lease must count as in use.
func TestReclaimUnknownNamespace(t *testing.T) {
	conf := small(t.TempDir(), 1)
	a := args(t, "unknown", conf)
	a.Netns = "/run/netns/none"
	add(t, a)
	wantError(t, alone.Status(a), plugin.CodeExhausted)
}

// TestRequested checks each key that can request an address. The error about a leased address must
// name the key, and the attachment that has the lease.
func TestRequested(t *testing.T) {
	conf := small(t.TempDir(), 3)
	a := args(t, "a", conf)
	a.Args = "IgnoreUnknown=1;IP=10.1.0.3"
	if got := add(t, a); !cmp.Equal(got, []string{"10.1.0.3/29"}) {
		t.Errorf("got %v", got)
	}
	for _, tt := range []struct {
		keys, args string
		code       uint
		want       string
	}{
		{"", "IP=10.1.0.3", plugin.CodeTaken, "CNI_ARGS: IP: 10.1.0.3 is leased already: to container a, interface eth0, since 20"},
		{`, "args": {"cni": {"ips": ["10.1.0.3"]}}`, "", plugin.CodeTaken, "args.cni.ips: 10.1.0.3 is leased already"},
		{`, "runtimeConfig": {"ips": ["10.1.0.1"]}`, "", types.ErrInvalidNetworkConfig, "runtimeConfig.ips: 10.1.0.1 is not available: it is the address of the gateway"},
		{"", "IP=10.1.0.6", types.ErrInvalidNetworkConfig, "CNI_ARGS: IP: 10.1.0.6 is not available: it is outside the ranges 10.1.0.1-10.1.0.4"},
		{"", "IP=ten", types.ErrInvalidNetworkConfig, `CNI_ARGS: IP: "ten" is not an IP address`},
	} {
		b := args(t, "b", strings.TrimSuffix(conf, "}")+tt.keys+"}")
		b.Args = tt.args
		_, err := alone.Add(b)
		wantError(t, err, tt.code, tt.want)
	}
	if err := os.Remove(a.Netns); err != nil { // the namespace of a is gone
		t.Fatal(err)
	}
	b := args(t, "b", conf)
	b.Args = a.Args
	if got := add(t, b); !cmp.Equal(got, []string{"10.1.0.3/29"}) {
		t.Errorf("got %v", got)
	}
}

// TestReadyWhenFull checks that STATUS with readyWhenFull fails only if the store cannot be used.
func TestReadyWhenFull(t *testing.T) {
	dir := t.TempDir()
	a := args(t, "a", strings.Replace(small(dir, 1), `"dataDir"`, `"readyWhenFull": true, "dataDir"`, 1))
	add(t, a)
	if err := alone.Status(a); err != nil {
		t.Error(err)
	}
	_, err := alone.Add(args(t, "b", string(a.StdinData)))
	wantError(t, err, plugin.CodeExhausted)
	fill := filepath.Join(dir, "none")
	a.StdinData = bytes.Replace(a.StdinData, []byte(dir), []byte(filepath.Join(fill, "x")), 1)
	if err := os.WriteFile(fill, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, alone.Status(a), types.ErrIOFailure)
}

// TestShared checks the error if two networks have the same subnet.
func TestShared(t *testing.T) {
	conf := small(t.TempDir(), 3)
	add(t, args(t, "a", conf))
	b := args(t, "b", strings.Replace(conf, `"name": "net"`, `"name": "other"`, 1))
	_, err := alone.Add(b)
	const want = "ipam.ranges: network other: range 10.1.0.1-10.1.0.4 is in use by another network; give one of the two networks another subnet, or a dataDir of its own: net has leased 1 addresses"
	wantError(t, err, types.ErrInvalidNetworkConfig, want)
	wantError(t, alone.Status(b), types.ErrInvalidNetworkConfig, want)
}

// TestSticky checks that a pod gets its address again after it was deleted and created with another
// container.
func TestSticky(t *testing.T) {
	conf := strings.Replace(small(t.TempDir(), 3), `"dataDir"`, fmt.Sprintf(`"sticky": "1h", "stickyDir": %q, "dataDir"`, t.TempDir()), 1)
	a := args(t, "a", conf)
	a.Args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod"
	first := add(t, a)
	if err := alone.Del(&skel.CmdArgs{ContainerID: "a", IfName: "eth0", StdinData: []byte(conf)}); err != nil {
		t.Fatal(err)
	}
	if other := add(t, args(t, "other", conf)); cmp.Equal(other, first) {
		t.Errorf("another container got %v", other)
	}
	a.ContainerID = "b"
	if again := add(t, a); !cmp.Equal(again, first) {
		t.Errorf("got %v, want %v again", again, first)
	}
}

// withHostLocal returns the configuration of the function small with the additional key importFrom.
// It also makes the folder of host-local, in which the container "running" has reserved 10.1.0.2.
func withHostLocal(t *testing.T, dir string, size int) string {
	t.Helper()
	old := t.TempDir()
	if err := os.Mkdir(filepath.Join(old, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "net", "10.1.0.2"), []byte("running\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(small(dir, size), `"dataDir"`, fmt.Sprintf(`"importFrom": %q, "dataDir"`, old), 1)
}

// TestReadBeforeImport checks that STATUS and CHECK use the reservations of host-local and change
// nothing. It checks this first without a store, and then with a store that has only another
// network.
func TestReadBeforeImport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	full := args(t, "running", withHostLocal(t, dir, 1))
	free := args(t, "running", withHostLocal(t, dir, 2))
	full.StdinData, free.StdinData = withPrev(t, string(full.StdinData), "10.1.0.2/29"), withPrev(t, string(free.StdinData), "10.1.0.2/29")
	read := func() {
		t.Helper()
		wantError(t, alone.Status(full), plugin.CodeExhausted, "(1 of 1 leased)")
		for _, err := range []error{alone.Status(free), alone.Check(full), alone.Check(free)} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	read()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("STATUS or CHECK made %s", dir)
	}
	add(t, args(t, "a", strings.NewReplacer(`"name": "net"`, `"name": "other"`, "10.1.", "10.2.").Replace(small(dir, 3))))
	stores, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(stores) != 1 {
		t.Fatal(stores, err)
	}
	before, err := os.ReadFile(stores[0])
	if err != nil {
		t.Fatal(err)
	}
	read()
	if after, err := os.ReadFile(stores[0]); err != nil || !bytes.Equal(before, after) {
		t.Errorf("STATUS or CHECK changed the store, %v", err)
	}
}

// TestImport checks that a container keeps the address that host-local has given to it.
func TestImport(t *testing.T) {
	conf := withHostLocal(t, filepath.Join(t.TempDir(), "new"), 3)
	running := args(t, "running", conf)
	running.StdinData = withPrev(t, conf, "10.1.0.2/29")
	if err := alone.Check(running); err != nil {
		t.Error(err)
	}
	if got := add(t, args(t, "new", conf)); !cmp.Equal(got, []string{"10.1.0.3/29"}) {
		t.Errorf("got %v", got)
	}
	if err := alone.Del(running); err != nil {
		t.Fatal(err)
	}
	wantError(t, alone.Check(running), plugin.CodeDrift, "no address is leased")
}

func TestStatusWithoutStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	a := args(t, "", small(dir, 1))
	if err := alone.Status(a); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !os.IsNotExist(err) {
		t.Errorf("STATUS made %s", filepath.Dir(dir))
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.StdinData = []byte(small(filepath.Join(file, "sub"), 1))
	wantError(t, alone.Status(a), types.ErrIOFailure, "ipam.dataDir", file)
}

// TestUnusableStore checks the error of each verb in two cases: the store is locked, or the store
// is damaged.
func TestUnusableStore(t *testing.T) {
	p := Plugin{lockWait: 10 * time.Millisecond}
	dir := t.TempDir()
	a := args(t, "c", small(dir, 3))
	addresses := add(t, a)
	var keys map[string]any
	if err := json.Unmarshal(withPrev(t, string(a.StdinData), addresses...), &keys); err != nil {
		t.Fatal(err)
	}
	keys["cni.dev/valid-attachments"] = []any{}
	a.StdinData, _ = json.Marshal(keys) // cannot fail for values that were unmarshalled before
	verbs := map[string]func(*skel.CmdArgs) error{
		"ADD": func(a *skel.CmdArgs) error { _, err := p.Add(a); return err },
		"DEL": p.Del, "CHECK": p.Check, "GC": p.GC, "STATUS": p.Status,
	}
	lock, err := flock.Acquire(dir, flock.Exclusive, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, verb := range verbs {
		t.Run(name+" locked", func(t *testing.T) {
			wantError(t, verb(a), types.ErrTryAgainLater, "ipam.dataDir", fmt.Sprint("process ", os.Getpid()))
		})
	}
	lock.Unlock()
	files, err := filepath.Glob(filepath.Join(dir, "leases-*.db"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 0); err != nil {
		t.Fatal(err)
	}
	for name, verb := range verbs {
		t.Run(name+" damaged", func(t *testing.T) {
			wantError(t, verb(a), types.ErrIOFailure, "ipam.dataDir", files[0], "damaged", "delete it")
		})
	}
}

// TestUnusableStickyFile checks the error of ADD in two cases: the sticky file is locked, or the
// sticky file is damaged.
func TestUnusableStickyFile(t *testing.T) {
	t.Parallel() // in parallel, because it waits for the lock
	sticky := t.TempDir()
	a := args(t, "a", strings.Replace(small(t.TempDir(), 3), `"dataDir"`, fmt.Sprintf(`"sticky": "1h", "stickyDir": %q, "dataDir"`, sticky), 1))
	a.Args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod"
	lock, err := flock.Acquire(sticky, flock.Exclusive, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = alone.Add(a)
	wantError(t, err, types.ErrTryAgainLater, "ipam.stickyDir", fmt.Sprint("process ", os.Getpid()))
	lock.Unlock()
	file := filepath.Join(sticky, "sticky.db")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = alone.Add(a)
	wantError(t, err, types.ErrIOFailure, "ipam.stickyDir", file, "damaged", "delete it")
	if strings.Contains(err.Error(), "reboot") {
		t.Errorf("%v: a reboot does not help, the file outlives it", err)
	}
}

// TestErrorPrinted checks that an error is printed as one JSON object with cniVersion, and that ADD
// with a wrong configuration creates no store.
func TestErrorPrinted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	got := call(t, "ADD", "c", network(fmt.Sprintf(`{"dataDir": %q, "subnet": "10.1.0.1/29"}`, dir)))
	want := `{"cniVersion":"1.1.0","code":7,"msg":"network net: ipam.subnet: 10.1.0.1/29 has host bits set; write 10.1.0.0/29"}` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("ADD made %s", dir)
	}
}
