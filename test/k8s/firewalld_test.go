package k8s

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFirewalld checks a cluster whose nodes run firewalld and have the policy DROP of FORWARD. The
// test pauses the node agent and bvctl, and reloads firewalld. The reload removes the bridge from
// its zone, so packets to pods are lost. The packets must pass again after the two programs have
// resumed.
func TestFirewalld(t *testing.T) {
	root := filepath.Join(os.Getenv("FIREWALLD_ROOT"), "trixie")
	if _, err := os.Stat(filepath.Join(root, "usr/sbin/firewalld")); err != nil {
		t.Skip("LISTED SKIP: no firewalld: run make test-k8s where Debian's packages can be had")
	}
	inCluster(t, shape{nodes: 2, proxy: "nftables", firewalld: root}, func(c *cluster) {
		c.awaitNodes()
		for _, n := range c.nodes {
			await(c, "firewalld on "+n.name, func() bool { _, err := n.try("firewall-cmd", "--state"); return err == nil })
			n.run("firewall-cmd", "-q", "--permanent", "--add-port", "10250/tcp") // port 10250 is the kubelet's
			n.run("firewall-cmd", "-q", "--reload")
			n.run("iptables", "-P", "FORWARD", "DROP") // as Docker leaves it
			n.run("ip6tables", "-P", "FORWARD", "DROP")
		}
		c.kubectl("apply", "-k", "../../deploy/overlays/firewalld")
		c.awaitAgents()
		c.awaitReady()
		c.apply(pods)
		c.checkPods("with firewalld")
		c.testServices()

		n, to := c.nodes[0], c.podOn(c.nodes[0]).Status.PodIPs[0].IP
		passes := func() bool { _, err := c.nodes[1].try("ping", "-n", "-c", "1", "-W", "2", to); return err == nil }
		resume := n.pause("bridgeveth-node", "bvctl")
		n.run("firewall-cmd", "-q", "--reload")
		if passes() {
			c.Error("packets pass after a reload: the test proves nothing")
		}
		resume()
		await(c, "packets after a reload", passes)
		c.checkPods("after a reload of firewalld")
	})
}
