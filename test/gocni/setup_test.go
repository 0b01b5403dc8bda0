package gocni

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	gocni "github.com/containerd/go-cni"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// second changes the configuration of conf/ to the configuration of a second network.
func second(_, plugin, ipam object) {
	plugin["bridge"] = "cni1"
	plugin["isGateway"], plugin["isDefaultGateway"] = true, false // the default route leads through the first network
	ipam["ranges"] = [][]object{{{"subnet": "10.96.0.0/16"}}}
}

// TestSetup checks ten containers that are attached to lo and to two networks. By default,
// containerd attaches a container to all its networks in parallel. The test also attaches the
// containers themselves in parallel.
func TestSetup(t *testing.T) {
	for _, way := range []struct {
		name  string
		setup func(gocni.CNI, context.Context, string, string, ...gocni.NamespaceOpts) (*gocni.Result, error)
	}{{"at once", gocni.CNI.Setup}, {"serially", gocni.CNI.SetupSerially}} {
		t.Run(way.name, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t)
				n.configure("first")
				n.configure("second", second)
				n.start(2)
				before := setuptest.Dump(t)
				var all sync.WaitGroup
				for i := range 10 {
					id, c, labels := n.container(i)
					all.Go(func() {
						if err := attached(way.setup(n.CNI, t.Context(), id, c.Path, labels)); err != nil {
							t.Errorf("container %d: %v", i, err)
						}
					})
				}
				all.Wait()
				c, err := setup.OpenNamespace("/run/netns/cni-0")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for _, to := range []string{"127.0.0.1", "10.86.0.11", "10.96.0.11"} {
					if !setuptest.Ping(t, c, to) {
						t.Errorf("no answer from %s", to)
					}
				}
				for i := range 10 {
					all.Go(func() {
						if err := n.Remove(t.Context(), fmt.Sprintf("%064x", i), fmt.Sprintf("/run/netns/cni-%d", i)); err != nil {
							t.Errorf("container %d: %v", i, err)
						}
					})
				}
				all.Wait()
				n.nothingLeft(before, "first", "second")
			})
		})
	}
}

// attached returns an error unless the result shows a container on lo and on both networks.
func attached(r *gocni.Result, err error) error {
	if err != nil {
		return err
	}
	for name, subnet := range map[string]string{"lo": "127.0.0.", "eth0": "10.86.0.", "eth1": "10.96.0."} {
		i := r.Interfaces[name]
		if i == nil || len(i.IPConfigs) == 0 || !strings.HasPrefix(i.IPConfigs[0].IP.String(), subnet) || i.Sandbox == "" {
			return fmt.Errorf("%s is %+v", name, i)
		}
	}
	return nil
}

// TestCapabilities checks host ports and bandwidth limits that go-cni passes to the plugins. The
// JSON keys begin with capital letters, because go-cni's types have no JSON tags.
func TestCapabilities(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		n.configure("net", func(_, plugin, _ object) {
			plugin["capabilities"] = object{"portMappings": true, "bandwidth": true, "dns": true, "cgroupPath": true, "io.kubernetes.cri.pod-annotations": true}
		})
		n.dirs = []string{harness.Recorder(t, programs), programs}
		n.start(1)
		before := setuptest.Dump(t)
		id, c, labels := n.container(1)
		asked := []gocni.NamespaceOpts{
			labels,
			gocni.WithCapabilityPortMap([]gocni.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}, {ContainerPort: 81, Protocol: "tcp"}}),
			gocni.WithCapabilityBandWidth(gocni.BandWidth{IngressRate: 8000000, IngressBurst: 4294967295, EgressRate: 8000000, EgressBurst: 4294967295}),
			gocni.WithCapabilityDNS(gocni.DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"shop.svc"}, Options: []string{"ndots:5"}}),
			gocni.WithCapabilityCgroupPath("/kubepods.slice/pod1"),
			gocni.WithCapability("io.kubernetes.cri.pod-annotations", map[string]string{"kubernetes.io/config.source": "api"}),
		}
		var server net.Listener
		if err := c.Do(func() (err error) { server, err = net.Listen("tcp", ":80"); return err }); err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		open := func() bool {
			conn, err := net.DialTimeout("tcp", "127.0.0.1:8080", time.Second)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}
		if open() {
			t.Error("the host port is open before Setup")
		}
		if _, err := n.Setup(t.Context(), id, c.Path, asked...); err != nil {
			t.Fatal(err)
		}
		received := string(harness.Received(t, "ADD", "runtimeConfig"))
		for _, words := range []string{
			`{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}`, `{"IngressRate":8000000,"IngressBurst":4294967295,"EgressRate":8000000,"EgressBurst":4294967295}`,
		} {
			if !strings.Contains(received, words) {
				t.Errorf("%s is not in the runtimeConfig that the plugin received: %s", words, received)
			}
		}
		if !open() {
			t.Error("the host port is not open")
		}
		buckets := setuptest.Run(t, "tc", "qdisc", "show")
		if n := strings.Count(buckets, " rate 8Mbit "); n != 2 {
			t.Errorf("%d of 2 limits are there:\n%s", n, buckets)
		}
		if err := n.Remove(t.Context(), id, c.Path, asked...); err != nil {
			t.Error(err)
		}
		if open() {
			t.Error("the host port is still open")
		}
		n.nothingLeft(before, "net")
	})
}

// TestSetupFails attaches a container to two networks. The second network has no free address, so
// its ADD fails. go-cni calls both ADDs in parallel, so the first network may be attached already.
// The test checks that Remove then detaches the container from both networks.
func TestSetupFails(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		n.configure("first")
		n.configure("second", second, func(_, _, ipam object) { ipam["ranges"] = only("10.96.0") })
		n.start(2)
		id, c, labels := n.container(1)
		if err := attached(n.Setup(t.Context(), id, c.Path, labels)); err != nil {
			t.Fatal(err)
		}
		before := setuptest.Dump(t)
		another, ns, labels := n.container(2)
		if _, err := n.Setup(t.Context(), another, ns.Path, labels); err == nil || !strings.Contains(err.Error(), "10.96.0.2") {
			t.Errorf("without a free address: %v", err)
		}
		if err := n.Remove(t.Context(), another, ns.Path, labels); err != nil {
			t.Error(err)
		}
		setuptest.Same(t, before, "the failed one left traces")
		if held, err := harness.Leases("first"); err != nil || len(held) != 1 || held[0].Container != id {
			t.Errorf("leases of the first network: %v, %v", held, err)
		}
	})
}

// only returns address ranges with a single address, which ends in .2. The parameter subnet has the
// first three numbers of this address, such as "10.86.0".
func only(subnet string) [][]object {
	return [][]object{{{"subnet": subnet + ".0/24", "rangeStart": subnet + ".2", "rangeEnd": subnet + ".2"}}}
}

// TestCheck checks CHECK through go-cni, before and after a flush of the FORWARD rules. It also
// checks STATUS, with and without a free address. go-cni's network for lo is not loaded, because
// its CNI version has no CHECK.
func TestCheck(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		n.configure("net", func(_, _, ipam object) { ipam["ranges"] = only("10.86.0") })
		c, err := gocni.New(gocni.WithPluginConfDir(n.conf), gocni.WithPluginDir(n.dirs), gocni.WithDefaultConf)
		if err != nil {
			t.Fatal(err)
		}
		id, ns, labels := n.container(1)
		if err := c.Status(); err != nil {
			t.Errorf("status with a free address: %v", err)
		}
		// STATUS fails only while a process is in the namespace that holds the only address.
		// Without a process, GC could free the address, so STATUS would succeed.
		process := exec.Command("nsenter", "--net="+ns.Path, "sleep", "infinity")
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = process.Process.Kill(); _ = process.Wait() }() // the process has ended by the signal
		if _, err := c.Setup(t.Context(), id, ns.Path, labels); err != nil {
			t.Fatal(err)
		}
		if err := c.Status(); err == nil || !strings.Contains(err.Error(), "10.86.0.2") {
			t.Errorf("status without one: %v", err)
		}
		if err := c.Check(t.Context(), id, ns.Path, labels); err != nil {
			t.Errorf("check: %v", err)
		}
		setuptest.Run(t, "iptables", "-F")
		if err := c.Check(t.Context(), id, ns.Path, labels); err == nil || !strings.Contains(err.Error(), "FORWARD") {
			t.Errorf("check without rules: %v", err)
		}
		if err := c.Remove(t.Context(), id, ns.Path, labels); err != nil {
			t.Error(err)
		}
		if err := c.Status(); err != nil {
			t.Errorf("status with a free address again: %v", err)
		}
	})
}
