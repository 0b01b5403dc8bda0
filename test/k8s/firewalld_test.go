package k8s

import (
	"os"
	"path/filepath"
	"testing"
)

// busConfig is a D-Bus configuration that permits everything. Only the node can reach this bus.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/><allow send_type="method_return"/><allow send_type="error"/>
    <allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_type="method_return"/><allow receive_type="error"/>
  </policy>
</busconfig>`

// TestFirewalld runs a cluster whose nodes have firewalld and also FORWARD at DROP. Both deny packets that
// nobody accepts. After a reload, firewalld rejects packets of pods until the agent has put the bridge into a zone again.
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
