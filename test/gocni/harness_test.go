// Package gocni tests the plugins with go-cni, which is containerd's library for CNI, and with the
// configuration for containerd in conf/.
package gocni

import (
	"fmt"
	"path/filepath"
	"testing"

	gocni "github.com/containerd/go-cni"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// programs is the folder with the executable files of the plugins.
var programs string

func TestMain(m *testing.M) {
	harness.Main(m, &programs, "bridgeveth", "bridge", "host-local", "loopback")
}

// object is a JSON object.
type object = map[string]any

type change = harness.Change

// node is a host on which the test calls containerd's library go-cni.
type node struct {
	gocni.CNI
	t    *testing.T
	conf string // folder of the configurations
	dirs []string
}

// newNode makes a host, whose policy of FORWARD is DROP.
func newNode(t *testing.T) *node {
	t.Helper()
	setuptest.DropForward(t, "iptables", "ip6tables")
	return &node{t: t, conf: t.TempDir(), dirs: []string{programs}}
}

// configure writes the configuration of conf/ under the name of a network, with the given changes.
func (n *node) configure(name string, changes ...change) {
	n.t.Helper()
	named := func(list, _, _ object) { list["name"] = name }
	harness.Configure(n.t, "10-containerd.conflist", filepath.Join(n.conf, name+".conflist"), append([]change{named}, changes...)...)
}

// start loads the networks as containerd does. These are the network for lo, which is a part of
// go-cni, and the given number of networks from configuration files.
func (n *node) start(networks int) {
	n.t.Helper()
	c, err := gocni.New(gocni.WithMinNetworkCount(networks+1), gocni.WithPluginConfDir(n.conf), gocni.WithPluginMaxConfNum(networks), gocni.WithPluginDir(n.dirs))
	if err == nil {
		err = c.Load(gocni.WithLoNetwork, gocni.WithDefaultConf)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.CNI = c
}

// container makes a container, and returns its ID, its network namespace and the labels that
// containerd passes for its pod. The number i distinguishes the containers of a test.
func (n *node) container(i int) (id string, c *setup.Namespace, labels gocni.NamespaceOpts) {
	n.t.Helper()
	id = fmt.Sprintf("%064x", i)
	return id, setuptest.Container(n.t, fmt.Sprintf("cni-%d", i)), gocni.WithLabels(map[string]string{
		"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": fmt.Sprint("web-", i), "K8S_POD_INFRA_CONTAINER_ID": id, "K8S_POD_UID": fmt.Sprint("0f3a-", i),
	})
}

// nothingLeft fails the test unless the host's state is equal to the state in the parameter before.
// There must also be no lease, and no record in libcni's cache.
func (n *node) nothingLeft(before string, networks ...string) {
	n.t.Helper()
	const complaint = "Remove left traces"
	setuptest.Same(n.t, before, complaint)
	for _, name := range networks {
		if left, err := harness.Leases(name); err != nil || len(left) > 0 {
			n.t.Errorf("%s: leases of %v, %v", complaint, left, err)
		}
	}
	if cached, err := filepath.Glob("/var/lib/cni/results/*"); err != nil || len(cached) > 0 {
		n.t.Errorf("%s: in libcni's cache %v, %v", complaint, cached, err)
	}
}
