package k8s

import (
	"strings"
)

// publishedPod is the manifest of a pod with a host port and bandwidth limits. The test replaces
// NODE by the name of a node.
const publishedPod = `apiVersion: v1
kind: Pod
metadata: {name: published, annotations: {kubernetes.io/ingress-bandwidth: 50M, kubernetes.io/egress-bandwidth: 50M}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: ` + podImage + `
    imagePullPolicy: Never
    command: [/bin/busybox, httpd, -f, -p, "7000", -h, /www]
    ports: [{containerPort: 7000, hostPort: 8070}]
    readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
`

// testFlush deletes rules or bandwidth limits of running pods, while the node agent and bvctl are
// paused. It checks that the two programs restore everything after they have continued.
func (c *cluster) testFlush() {
	c.Helper()
	n := c.nodes[0]
	c.apply(strings.ReplaceAll(publishedPod, "NODE", n.name))
	c.kubectl("wait", "pod", "published", "--for", "condition=Ready", "--timeout", "5m")
	published := func() bool {
		for _, ip := range n.ips {
			if !c.reaches(ip, "8070") {
				return false
			}
		}
		return true
	}
	limited := func() bool { return strings.Count(n.run("tc", "qdisc", "show"), "qdisc tbf ") == 2 }
	other := c.podOn(n)
	passes := func() bool {
		_, err := c.nodes[1].try("ping", "-n", "-c", "1", "-W", "2", other.Status.PodIPs[0].IP)
		return err == nil
	}
	_, nodePort := c.service("cluster-" + c.nodes[1].name)
	through := func() bool { return c.reaches(n.ips[0], nodePort) }
	for _, tt := range []struct {
		name, wipe string
		works      func() bool
	}{
		{"the rules for NodePorts of pods on other nodes", "iptables -F BRIDGEVETH-TRANSIT", through},
		{"all rules of nftables", "nft flush ruleset", published},
		{"the FORWARD chain, with policy DROP", "iptables -P FORWARD DROP; iptables -F; ip6tables -F", passes},
		{"the bandwidth limit", "tc qdisc show | sed -n 's/^qdisc tbf .* dev \\([^ ]*\\) root.*/\\1/p' | while read link; do tc qdisc del dev $link root; done", limited},
	} {
		await(c, "a state before the loss of "+tt.name, tt.works)
		resume := n.pause("bridgeveth-node", "bvctl")
		n.run("sh", "-ec", tt.wipe)
		if tt.works() {
			c.Errorf("%s deleted: it works on, so the test proves nothing", tt.name)
		}
		resume()
		await(c, tt.name+" again", tt.works)
	}
	c.checkPods("after flushes")
	n.kill("kube-proxy") // in mode nftables, it does not notice the loss of its rules
	c.kubectl("delete", "pod", "published")
	if left := n.run("nft", "list", "map", "ip", "bridgeveth", "ports"); strings.Contains(left, "8070") {
		c.Errorf("the host port is left:\n%s", left)
	}
}

// pause stops all processes of the given programs on the node by SIGSTOP. resume continues these
// processes.
func (n *node) pause(programs ...string) (resume func()) {
	n.Helper()
	pids := strings.Fields(n.run("pgrep", "-x", strings.Join(programs, "|")))
	if len(pids) < len(programs) {
		n.Fatalf("processes of %v: %v", programs, pids)
	}
	n.run(append([]string{"kill", "-STOP"}, pids...)...)
	return func() { n.Helper(); n.run(append([]string{"kill", "-CONT"}, pids...)...) }
}
