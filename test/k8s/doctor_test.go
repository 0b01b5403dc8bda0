package k8s

import "strings"

// testDoctor runs "bvctl doctor" for the way from a pod of the first node to a pod of the second
// node, through the tunnel. At first, the doctor must find no fault. Then the agent of the second
// node answers the first node, and the doctor must print this answer. At the end, the agent of the
// first node is stopped and the forwarding entries are deleted. The doctor must report a missing
// entry.
func (c *cluster) testDoctor() {
	c.Helper()
	n, from, to := c.nodes[0], c.podOn(c.nodes[0]), c.podOn(c.nodes[1])
	doctor := func(ip string) (string, error) {
		return n.try("/opt/cni/bin/bvctl", "doctor", "default/"+from.Metadata.Name, ip)
	}
	check := func(out string, parts ...string) {
		c.Helper()
		for _, part := range parts {
			if !strings.Contains(out, part) {
				c.Errorf("bvctl doctor does not say %q:\n%s", part, out)
			}
		}
	}
	for _, ip := range to.Status.PodIPs {
		out, err := doctor(ip.IP)
		if err != nil || strings.Count(out, "\n  · ") > 1 {
			c.Errorf("bvctl doctor finds a fault (%v):\n%s", err, out)
		}
		check(out, "✓ node agent: bridgeveth-node says that this node is ready", "✓ peer node: "+c.nodes[1].name+", by the route ",
			"✓ tunnel: bvx0 is up", "✓ tunnel entries: ", "leads to "+c.nodes[1].ips[0], "✓ route to the peer node: ", "· far end: the agent of "+c.nodes[1].name, "✓ test packet: answered")
	}

	// The agent of the second node listens only on 127.0.0.1. This rule redirects requests of other
	// nodes to it.
	far := c.nodes[1]
	far.run("sh", "-ec", "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet; nft 'add table ip far; add chain ip far in { type nat hook prerouting priority -100; }; add rule ip far in tcp dport 9097 dnat to 127.0.0.1'")
	out, _ := doctor(to.Status.PodIPs[0].IP)
	check(out, "✓ far end: "+far.name+" is ready; its way back to ", ": tunnel\n")
	far.run("nft", "delete", "table", "ip", "far")

	resume := n.pause("bridgeveth-node")
	n.run("sh", "-ec", "bridge fdb show dev bvx0 | while read mac rest; do bridge fdb del $mac dev bvx0; done")
	out, err := doctor(to.Status.PodIPs[0].IP)
	if err == nil {
		c.Error("bvctl doctor finds no fault")
	}
	check(out, "· node agent: bridgeveth-node does not answer on this host", "Obstacle: forwarding entry of the tunnel: the forwarding entry for ", "Advice: start bridgeveth-node on this host")
	resume()
	await(c, "a forwarding entry again", func() bool { _, err := doctor(to.Status.PodIPs[0].IP); return err == nil })
	c.Logf("bvctl doctor: follows packets through the tunnel")
}
