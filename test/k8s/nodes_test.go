package k8s

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNodes adds a third node, deletes its Node object, replaces its plugin by another version, and
// stops it. After each step it checks the routes, and that pods reach each other. It also checks
// that pods reach a Service by its DNS name.
func TestNodes(t *testing.T) {
	inCluster(t, shape{nodes: 2, proxy: "iptables"}, func(c *cluster) {
		c.awaitNodes()
		c.kubectl("apply", "-k", "../../deploy")
		c.awaitAgents()
		c.awaitReady()
		c.apply(pods)
		c.checkPods("two nodes")
		c.testDNS()

		third := c.addNode(far) // the node is behind a router, so the packets go through the tunnel
		c.awaitNodes()
		c.awaitReady()
		c.checkPods("a third node")
		if routes := c.nodes[0].run("ip", "route", "show", "proto", "97"); !strings.Contains(routes, "dev eth0") || !strings.Contains(routes, "dev bvx0") {
			c.Errorf("%s needs a direct route and one through the tunnel:\n%s", c.nodes[0].name, routes)
		}
		c.checkBig()
		c.testNodeMoved()
		c.testNodeForgotten(third)
		c.testTwoVersions(third)

		third.stop()
		c.kubectl("delete", "node", third.name)
		c.nodes = c.nodes[:2]
		c.awaitRoutes(1)
		c.checkPods("the third node gone")
	})
}

// awaitRoutes waits until each node has exactly one IPv4 route and one IPv6 route for each other
// node. The parameter peers is the number of these other nodes.
func (c *cluster) awaitRoutes(peers int) {
	c.Helper()
	for _, n := range c.nodes {
		await(c, "the routes of "+n.name, func() bool {
			return strings.Count(n.run("ip", "route", "show", "proto", "97"), " via ") == peers &&
				strings.Count(n.run("ip", "-6", "route", "show", "proto", "97"), " via ") == peers
		})
	}
}

// testNodeMoved gives the second node other InternalIPs while its pods run. The first node reaches
// the second node directly, the third node reaches it by the tunnel. The test checks that both
// nodes change their routes and tunnel entries to the new addresses, and keep none with the old
// addresses.
func (c *cluster) testNodeMoved() {
	c.Helper()
	n, old := c.nodes[1], c.nodes[1].ips
	n.move(n.prefix4+"77", n.prefix6+"77")
	await(c, "the new InternalIPs", func() bool {
		return c.kubectl("get", "node", n.name, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`) == strings.Join(n.ips, " ")
	})
	routes := func(from *node) string {
		return from.run("ip", "route", "show", "proto", "97") + from.run("ip", "-6", "route", "show", "proto", "97") + from.run("sh", "-c", "bridge fdb show dev bvx0; ip neigh show dev bvx0")
	}
	for i, from := range []*node{c.nodes[0], c.nodes[2]} {
		await(c, "the new addresses on "+from.name, func() bool {
			now := routes(from)
			return strings.Contains(now, n.ips[0]) && (i > 0 || strings.Contains(now, n.ips[1])) && !strings.Contains(now+" ", old[0]+" ") && !strings.Contains(now+" ", old[1]+" ")
		})
	}
	await(c, "the routes of "+n.name, func() bool { // the kernel has deleted them with the addresses
		now := routes(n)
		return strings.Contains(now, "via "+c.nodes[0].ips[0]+" ") && strings.Contains(now, "dev bvx0")
	})
	c.awaitPod(n)
	c.checkPods("a node with other addresses")
	if local := n.run("ip", "-d", "link", "show", "bvx0"); !strings.Contains(local, " local "+n.ips[0]+" ") {
		c.Errorf("the tunnel of %s still sends from the old address:\n%s", n.name, local)
	}
}

// testNodeForgotten deletes the Node object of a running node, and checks that the node's pod still
// answers. The kubelet makes a new Node object when it starts again. The node may then have another
// pod range, so the test replaces all pods and checks that the new ones reach each other.
func (c *cluster) testNodeForgotten(n *node) {
	c.Helper()
	all := c.nodes
	before := c.podOn(n)
	c.kubectl("delete", "node", n.name)
	c.nodes = c.nodes[:2]
	c.awaitRoutes(1)
	c.nodes = all
	if out, err := n.try("ping", "-n", "-c", "1", "-W", "5", before.Status.PodIPs[0].IP); err != nil {
		c.Errorf("a pod of the node without a Node object does not answer its node: %s", out)
	}
	n.kill("kubelet")
	c.awaitNodes()
	c.awaitReady()
	c.awaitRoutes(2)
	c.kubectl("delete", "pod", "-l", "app=web") // pods on the node may have addresses of the old range
	c.checkPods("Node object deleted and made again")
}

// testTwoVersions runs a node agent that installs another version of the plugin, on one node only.
// It checks that pods reach each other, whichever version attached them. At the end, all nodes have
// the same version again.
func (c *cluster) testTwoVersions(n *node) {
	c.Helper()
	const image = "ghcr.io/bridgeveth/other"
	bin := filepath.Join(dir, "other")
	run(c, "cp", "-r", filepath.Join(dir, "bin"), bin)
	run(c, "go", "build", "-C", "../..", "-ldflags", "-X github.com/bridgeveth/bridgeveth/pkg/plugin.Version=v0.0.1", "-o", filepath.Join(bin, "bridgeveth"), "./cmd/bridgeveth")
	run(c, "../../deploy/image.sh", bin, filepath.Join(bin, "image.tar"))
	n.run(filepath.Join(containerdRoot, "debian", "ctr"), "-n", "k8s.io", "images", "import", "--base-name", image, filepath.Join(bin, "image.tar"))
	installed := func(bin string) bool {
		want, err := os.ReadFile(filepath.Join(bin, "bridgeveth"))
		if err != nil {
			c.Fatal(err)
		}
		got, err := os.ReadFile(n.dir + "/upper/opt/cni/bin/bridgeveth")
		return err == nil && string(got) == string(want)
	}

	const agents = "daemonset/bridgeveth-node"
	c.kubectl("-n", "kube-system", "patch", agents, "--type", "merge", "-p", `{"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}`)
	c.kubectl("-n", "kube-system", "set", "image", agents, "agent="+image+":latest", "repair="+image+":latest")
	c.kubectl("-n", "kube-system", "delete", "pod", "-l", "app=bridgeveth-node", "--field-selector", "spec.nodeName="+n.name)
	await(c, "the other version of the plugin", func() bool { return installed(bin) })
	c.checkPods("two versions of the agent")
	c.kubectl("delete", "pod", c.podOn(n).Metadata.Name, c.podOn(c.nodes[0]).Metadata.Name)
	c.checkPods("two versions of the plugin")

	c.kubectl("-n", "kube-system", "patch", agents, "--type", "merge", "-p", `{"spec": {"updateStrategy": {"type": "RollingUpdate"}}}`)
	c.kubectl("apply", "-k", "../../deploy")
	c.awaitAgents()
	await(c, "the version of the other nodes", func() bool { return installed(filepath.Join(dir, "bin")) })
	c.checkPods("one version again")
}
