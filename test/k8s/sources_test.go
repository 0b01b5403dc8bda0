package k8s

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// hostPods run on every node, in its network namespace. They answer as the pods do.
var hostPods = strings.NewReplacer("web", "host", "-p 7000", "-p 7001", "port: 7000", "port: 7001",
	"    spec:\n", "    spec:\n      hostNetwork: true\n").Replace(pods[:strings.Index(pods, "---")])

// testSources has pods call the nodes and the outside, and nodes call pods. The own node sees a pod's own
// address, everybody else the address of the pod's node.
func (c *cluster) testSources() {
	c.Helper()
	server := &http.Server{Addr: ":7001", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := netip.MustParseAddrPort(r.RemoteAddr).Addr().Unmap()
		fmt.Fprintf(w, "%v outside\n", caller)
	})}
	go func() { _ = server.ListenAndServe() }() // until Close
	defer server.Close()
	c.apply(hostPods)
	c.kubectl("rollout", "status", "daemonset/host", "--timeout", "5m")
	for _, p := range c.pods() {
		for _, n := range c.nodes {
			for _, ip := range p.Status.PodIPs {
				if _, name, err := onNode(n).call(ip.IP, "7000"); err != nil || name != p.Metadata.Name {
					c.Errorf("from %s to %s: answer of %q (%v)", n.name, ip.IP, name, err)
				}
			}
			if n.name == p.Spec.NodeName {
				c.checkSources(p, n)
			}
		}
	}
	c.kubectl("delete", "daemonset", "host")
	c.Logf("nodes and outside: source addresses as promised")
}

// checkSources has a pod of a node call all nodes and the outside.
func (c *cluster) checkSources(p pod, own *node) {
	c.Helper()
	for i := range own.ips {
		targets := map[string]string{c.controlIPs()[i]: own.ips[i]} // the caller's address that each sees
		for _, n := range c.nodes {
			targets[n.ips[i]] = own.ips[i]
		}
		targets[own.ips[i]] = p.address(own.ips[i])
		for to, want := range targets {
			if caller, _, err := c.from(p).call(to, "7001"); err != nil || caller != want {
				c.Errorf("from a pod on %s to %s: caller %q, want %s (%v)", own.name, to, caller, want, err)
			}
		}
	}
}
