package k8s

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// hostPods is the manifest of a DaemonSet whose pods use the network namespaces of their nodes.
// They answer requests as the pods of the DaemonSet web do.
var hostPods = strings.NewReplacer("web", "host", "-p 7000", "-p 7001", "port: 7000", "port: 7001",
	"    spec:\n", "    spec:\n      hostNetwork: true\n").Replace(pods[:strings.Index(pods, "---")])

// testSources checks the source addresses that the receivers of requests from pods see. A pod's own
// node sees the pod's address. Other nodes and machines outside the cluster see the address of the
// pod's node. The test also checks that pods answer requests from nodes.
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

// checkSources sends requests from a pod to all nodes and to the outside. It checks the caller's IP
// address that each receiver sees.
func (c *cluster) checkSources(p pod, own *node) {
	c.Helper()
	for i := range own.ips {
		targets := map[string]string{c.controlIPs()[i]: own.ips[i]} // the caller's address that each receiver sees
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
