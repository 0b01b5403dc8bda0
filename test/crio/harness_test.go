// Package crio tests the plugins with ocicni, which is CRI-O's library for CNI, and with the
// configuration for CRI-O in conf/.
package crio

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/cri-o/ocicni/pkg/ocicni"
	"github.com/sirupsen/logrus"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// programs is the folder with the executable files of bvctl and the plugins.
var programs string

func TestMain(m *testing.M) {
	harness.Main(m, &programs, "bridgeveth", "bvctl", "bridge", "host-local")
}

// object is a JSON object.
type object = map[string]any

type change = harness.Change

// reference is a change of the network configuration: the reference plugins replace ours.
func reference(_, plugin, ipam object) {
	plugin["type"], ipam["type"] = "bridge", "host-local"
}

// version returns a change of the network configuration that sets its CNI version.
func version(v string) change {
	return func(list, _, _ object) {
		list["cniVersion"] = v
		delete(list, "cniVersions")
	}
}

// only returns a change of the network configuration. This change leaves the network the given
// number of IPv4 addresses, from 10.87.0.2 on, and no IPv6 address.
func only(count int) change {
	return func(_, _, ipam object) {
		ipam["ranges"] = [][]object{{{"subnet": "10.87.0.0/24", "rangeStart": "10.87.0.2", "rangeEnd": fmt.Sprint("10.87.0.", count+1)}}}
	}
}

// node is a host on which the test calls CRI-O's library ocicni.
type node struct {
	ocicni.CNIPlugin
	t    *testing.T
	conf string // the folder that the library watches
	log  *os.File
}

// newNode makes a host, and starts the library ocicni with the configuration of conf/ and the given
// changes. The policy of FORWARD is DROP.
func newNode(t *testing.T, changes ...change) *node {
	t.Helper()
	setuptest.DropForward(t, "iptables", "ip6tables")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, conf: t.TempDir(), log: log}
	logrus.SetOutput(log)
	t.Cleanup(func() {
		t.Logf("ocicni says:\n%s", n.said())
		log.Close()
	})
	n.configure(changes...)
	n.start(programs)
	return n
}

// said returns the log of the library ocicni.
func (n *node) said() string {
	n.t.Helper()
	b, err := os.ReadFile(n.log.Name())
	if err != nil {
		n.t.Error(err)
	}
	return string(b)
}

// configure writes the configuration of conf/, with the given changes, to the folder that the
// library ocicni watches.
func (n *node) configure(changes ...change) {
	n.t.Helper()
	harness.Configure(n.t, "10-crio.conflist", filepath.Join(n.conf, "10-crio.conflist"), changes...)
}

// start starts the library ocicni, as CRI-O does when it starts. The folder dir has the plugins.
func (n *node) start(dir string) {
	n.t.Helper()
	cri, err := ocicni.InitCNI("", n.conf, dir)
	if err != nil {
		n.t.Fatal(err)
	}
	n.CNIPlugin = cri
	n.t.Cleanup(func() { _ = cri.Shutdown() }) // it only ends the watch of the folder
}

// pod makes a network namespace for a pod, and returns the values that CRI-O passes for this pod.
// The number i distinguishes the pods of a test.
func (n *node) pod(i int) ocicni.PodNetwork {
	n.t.Helper()
	name := fmt.Sprintf("pod-%d", i)
	c := setuptest.Container(n.t, name)
	c.Close() // an open descriptor would keep the namespace alive after removeNamespace
	return ocicni.PodNetwork{
		Name: fmt.Sprintf("web-%d", i), Namespace: "shop", UID: fmt.Sprintf("0f3a-%d", i),
		ID: fmt.Sprintf("%064x", i), NetNS: c.Path,
	}
}

// up calls ADD and then CHECK, as CRI-O does when it starts a pod.
func (n *node) up(p ocicni.PodNetwork) (*current.Result, error) {
	if _, err := n.SetUpPod(p); err != nil {
		return nil, err
	}
	results, err := n.GetPodNetworkStatus(p)
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || results[0].Name != "crio" || results[0].Ifname != "eth0" {
		return nil, fmt.Errorf("results are %+v", results)
	}
	return current.NewResultFromResult(results[0].Result)
}

// pods makes and starts pods with the numbers 1 to count.
func (n *node) pods(count int) (all []ocicni.PodNetwork) {
	n.t.Helper()
	for i := range count {
		p := n.pod(i + 1)
		if _, err := n.up(p); err != nil {
			n.t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// down removes pods, and fails the test if a removal fails.
func (n *node) down(pods ...ocicni.PodNetwork) {
	n.t.Helper()
	for _, p := range pods {
		if err := n.TearDownPod(p); err != nil {
			n.t.Errorf("tear down %s: %v", p.Name, err)
		}
	}
}

// removeNamespace unmounts a pod's network namespace directly, not through CRI-O. The file on which
// the namespace was mounted stays.
func (n *node) removeNamespace(p ocicni.PodNetwork) {
	n.t.Helper()
	setuptest.Run(n.t, "umount", p.NetNS)
}

// startProcess starts a process in a pod's network namespace.
func (n *node) startProcess(p ocicni.PodNetwork) {
	n.t.Helper()
	c, err := setup.OpenNamespace(p.NetNS)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	setuptest.Inhabit(n.t, c)
}

// ping reports whether an address answers a ping from a pod.
func (n *node) ping(p ocicni.PodNetwork, to string) bool {
	n.t.Helper()
	c, err := setup.OpenNamespace(p.NetNS)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	return setuptest.Ping(n.t, c, to)
}

// held returns the leased IPv4 addresses of the network with the numbers of their pods, for example
// "1 10.87.0.2" for pod 1. It reads our leases and the files of the reference plugin host-local.
func (n *node) held() (all []string) {
	n.t.Helper()
	leases, err := harness.Leases("crio")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, l := range leases {
		if l.Address.Addr().Is4() {
			all = append(all, strings.TrimLeft(l.Container, "0")+" "+l.Address.Addr().String())
		}
	}
	const dir = "/var/lib/cni/networks/crio"
	files, _ := os.ReadDir(dir) // the folder exists only if host-local has made it
	for _, f := range files {
		if a, err := netip.ParseAddr(f.Name()); err == nil && a.Is4() {
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				n.t.Fatal(err)
			}
			id, _, _ := strings.Cut(string(b), "\r\n")
			all = append(all, strings.TrimLeft(id, "0")+" "+f.Name())
		}
	}
	return all
}

// nothingLeft fails the test unless the host's state is equal to the state in the parameter before.
// There must also be no lease, and no record in libcni's cache.
func (n *node) nothingLeft(before, complaint string) {
	n.t.Helper()
	setuptest.Same(n.t, before, complaint)
	if held := n.held(); len(held) > 0 {
		n.t.Errorf("%s: leases of %v", complaint, held)
	}
	if cached, err := filepath.Glob("/var/lib/cni/results/*"); err != nil || len(cached) > 0 {
		n.t.Errorf("%s: in libcni's cache %v, %v", complaint, cached, err)
	}
}
