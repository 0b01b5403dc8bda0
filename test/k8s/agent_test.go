package k8s

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(nodeVar) != "" {
		fmt.Fprintln(os.Stderr, runNode())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestAgent installs the node agent in a cluster of two nodes. It checks that pods reach each
// other, also after nodes and programs have stopped and started again.
func TestAgent(t *testing.T) {
	inCluster(t, shape{nodes: 2, proxy: "iptables"}, func(c *cluster) {
		c.awaitNodes()
		if ready := c.ready(); strings.Contains(ready, "True") {
			t.Fatalf("ready without a network: %s", ready)
		}
		c.kubectl("apply", "-k", "../../deploy")
		c.awaitAgents()
		c.awaitReady()
		c.apply(pods)
		c.checkPods("fresh pods")
		c.testSources()
		c.testServices()

		c.testRestart()
		c.testKills()
		c.testWithoutAPI()
		c.testReboot()
		c.testNodeGone()
		c.testRemove()
	})
}

// TestTunnel checks a cluster in which all packets between pods of different nodes go through the
// VXLAN tunnel. The policy of FORWARD is DROP, as on a host with Docker.
func TestTunnel(t *testing.T) {
	inCluster(t, shape{nodes: 2, proxy: "nftables"}, func(c *cluster) {
		c.awaitNodes()
		for _, n := range c.nodes {
			n.run("iptables", "-P", "FORWARD", "DROP")
			n.run("ip6tables", "-P", "FORWARD", "DROP")
		}
		c.kubectl("apply", "-k", "../../deploy/overlays/vxlan")
		c.awaitAgents()
		c.awaitReady()
		c.apply(pods)
		c.checkPods("through the tunnel")
		for _, n := range c.nodes {
			if routes := n.run("ip", "route", "show", "proto", "97"); !strings.Contains(routes, "dev bvx0") {
				c.Errorf("%s has no route through the tunnel:\n%s", n.name, routes)
			}
		}
		c.checkBig()
		c.testSources()
		c.testServices()
		c.testDoctor()
		c.testFlush()
	})
}

// TestIPv6 checks pods and Services in a cluster without IPv4.
func TestIPv6(t *testing.T) {
	inCluster(t, shape{nodes: 2, proxy: "nftables", ipv6: true}, func(c *cluster) {
		c.awaitNodes()
		c.kubectl("apply", "-k", "../../deploy")
		c.awaitAgents()
		c.awaitReady()
		c.apply(pods)
		c.checkPods("IPv6 alone")
		c.testSources()
		c.testServices()
	})
}

// testRestart deletes the pods of the node agents, so that new agents start. It checks that the new
// agents change nothing on the nodes, and that pods still reach each other.
func (c *cluster) testRestart() {
	before := c.written()
	c.kubectl("-n", "kube-system", "delete", "pod", "-l", "app=bridgeveth-node")
	c.awaitAgents()
	if after := c.written(); after != before {
		c.Errorf("new agents have changed something: before\n%s\nafter\n%s", before, after)
	}
	c.checkPods("agents replaced")
}

// testReboot reboots a node. The node's disk keeps its files. The test checks that the node and its
// pods work again.
func (c *cluster) testReboot() {
	n := c.nodes[0]
	link := "/upper/etc/cni/net.d/10-bridgeveth.conflist"
	n.stop()
	if _, err := os.Lstat(n.dir + link); err != nil {
		c.Errorf("no configuration on the disk: the test proves nothing (%v)", err)
	}
	n.start()
	// The CNI configuration must not exist before the routes. Otherwise the runtime would report
	// the node ready although pods of other nodes are not reachable yet.
	if out, err := n.try("cat", "/etc/cni/net.d/10-bridgeveth.conflist"); err == nil && n.run("ip", "route", "show", "proto", "97") == "" {
		c.Errorf("a configuration of the last boot, and no routes:\n%s", out)
	}
	await(c, "the routes", func() bool { out, err := n.try("ip", "route", "show", "proto", "97"); return err == nil && out != "" })
	c.awaitReady()
	c.awaitPod(n)
	c.checkPods("node rebooted")
	c.awaitNothingLeft(n, 1)
}

// testNodeGone stops a node, deletes its Node object, and starts the node again. It checks that the
// other node removes its routes to the stopped node, and that pods reach each other at the end.
func (c *cluster) testNodeGone() {
	first, second := c.nodes[0], c.nodes[1]
	second.stop()
	c.kubectl("delete", "node", second.name)
	await(c, "an end of the routes to the deleted node", func() bool {
		return !strings.Contains(first.run("ip", "route", "show", "proto", "97"), "via") && !strings.Contains(first.run("ip", "-6", "route", "show", "proto", "97"), "via")
	})
	second.start()
	c.awaitNodes()
	c.awaitReady()
	c.awaitPod(second)
	c.checkPods("node added")
}

// testRemove removes the node agent from the cluster, and runs `bridgeveth-node --remove` on each
// node. It checks that no route and no file of the agent is left.
func (c *cluster) testRemove() {
	c.kubectl("delete", "-k", "../../deploy")
	c.kubectl("-n", "kube-system", "wait", "pod", "-l", "app=bridgeveth-node", "--for", "delete", "--timeout", "5m")
	for _, n := range c.nodes {
		n.run(dir+"/bin/bridgeveth-node", "--remove")
		left := n.run("ip", "route", "show", "proto", "97") + n.run("ip", "-6", "route", "show", "proto", "97") + n.run("find", "/etc/cni/net.d", "/run/bridgeveth-node", "!", "-type", "d")
		if left != "" {
			c.Errorf("left on %s:\n%s", n.name, left)
		}
	}
}

// written returns what node agents have written on the nodes: the routes, and the inode numbers of
// the files. An agent never changes a file in place: it renames a new file, with another inode
// number, over the old one.
func (c *cluster) written() (text string) {
	for _, n := range c.nodes {
		text += n.name + "\n" + n.run("ip", "route", "show", "proto", "97") + n.run("ip", "-6", "route", "show", "proto", "97") +
			n.run("stat", "-c", "%n %i", "/etc/cni/net.d/10-bridgeveth.conflist", "/run/bridgeveth-node/conflist", "/opt/cni/bin/bridgeveth")
	}
	return text
}
