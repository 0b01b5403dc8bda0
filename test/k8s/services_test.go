package k8s

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// nodeService is the manifest of a Service with a NodePort, whose only pod is on one node. The test
// replaces NODE by the node's name, and POLICY by the externalTrafficPolicy.
const nodeService = `---
apiVersion: v1
kind: Service
metadata: {name: POLICY-NODE}
spec:
  type: NodePort
  externalTrafficPolicy: POLICY
  ipFamilyPolicy: PreferDualStack
  selector: {app: web, where: NODE}
  ports: [{port: 70, targetPort: 7000}]
`

// stickyService is the manifest of a Service with session affinity.
const stickyService = `apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {app: web}, ports: [{port: 70, targetPort: 7000}], sessionAffinity: ClientIP}
`

type service struct {
	Spec struct {
		ClusterIPs []string
		Ports      []struct{ NodePort int }
	}
}

func (c *cluster) service(name string) (s service, nodePort string) {
	c.Helper()
	c.get(&s, "service", name)
	return s, strconv.Itoa(s.Spec.Ports[0].NodePort)
}

// testServices checks that Services answer requests from each pod, from each node, and from outside
// the cluster. Each pod also sends requests to itself through its own Service.
func (c *cluster) testServices() {
	c.Helper()
	objects := stickyService
	for _, p := range c.pods() {
		node := p.Spec.NodeName
		c.kubectl("label", "--overwrite", "pod", p.Metadata.Name, "where="+node)
		for _, policy := range []string{"Cluster", "Local"} {
			objects += strings.NewReplacer("POLICY-NODE", strings.ToLower(policy)+"-"+node, "POLICY", policy, "NODE", node).Replace(nodeService)
		}
	}
	c.apply(objects)
	inside := []place{}
	for _, p := range c.pods() {
		inside = append(inside, c.from(p))
	}
	for _, n := range c.nodes {
		inside = append(inside, onNode(n))
	}
	for _, to := range c.pods() {
		c.checkClusterIP(to, inside)
		c.checkNodePort(to, append(inside, c.outside()))
		c.checkLocal(to)
	}
	c.checkAffinity()
	c.Logf("Services: answered from all sides")
}

// checkClusterIP checks that a Service with one pod answers at its ClusterIP. If the request comes
// from another pod, the Service's pod must see the sender's own IP address.
func (c *cluster) checkClusterIP(to pod, inside []place) {
	c.Helper()
	s, _ := c.service("cluster-" + to.Spec.NodeName)
	for _, ip := range s.Spec.ClusterIPs {
		for _, n := range c.nodes {
			c.awaitCall(onNode(n), ip, "70")
		}
		for _, from := range inside {
			want := "" // if a pod calls itself, kube-proxy replaces its address
			if from.pod != nil && from.pod.Metadata.Name != to.Metadata.Name {
				want = from.pod.address(ip)
			}
			c.checkAnswer(from, ip, "70", to, want)
		}
	}
}

// checkNodePort checks that the NodePort of a Service answers at each node, also at nodes on which
// the Service has no pod.
func (c *cluster) checkNodePort(to pod, places []place) {
	c.Helper()
	_, port := c.service("cluster-" + to.Spec.NodeName)
	for _, n := range c.nodes {
		for _, ip := range n.ips {
			for _, from := range places {
				c.checkAnswer(from, ip, port, to, "")
			}
		}
	}
}

// checkLocal checks a NodePort with externalTrafficPolicy Local: only the node of the Service's pod
// answers, and this pod sees the caller's own IP address.
func (c *cluster) checkLocal(to pod) {
	c.Helper()
	_, port := c.service("local-" + to.Spec.NodeName)
	for _, n := range c.nodes {
		for i, ip := range n.ips {
			if n.name == to.Spec.NodeName {
				c.awaitCall(c.outside(), ip, port)
				c.checkAnswer(c.outside(), ip, port, to, c.controlIPs()[i])
			} else if c.reaches(ip, port) {
				c.Errorf("externalTrafficPolicy Local: %s answers without a pod", n.name)
			}
		}
	}
}

// reaches reports whether a web server at a TCP port answers a request from outside the cluster
// within three seconds.
func (c *cluster) reaches(ip, port string) bool {
	_, err := c.outside().run("timeout", "3", "curl", "-gsS", "http://"+net.JoinHostPort(ip, port))
	return err == nil
}

// checkAffinity sends requests from one pod to two Services with the same pods. With session
// affinity, one pod must answer all requests. Without affinity, each pod must answer some of them.
func (c *cluster) checkAffinity() {
	c.Helper()
	from := c.from(c.pods()[0])
	s, _ := c.service("sticky")
	names := map[string]bool{}
	for range 10 {
		_, name, err := from.call(s.Spec.ClusterIPs[0], "70")
		if err != nil {
			c.Errorf("session affinity: %v", err)
		}
		names[name] = true
	}
	if len(names) != 1 {
		c.Errorf("session affinity: answers of %v", names)
	}
	s, _ = c.service("web")
	clear(names)
	await(c, "answers of all pods of a Service without affinity", func() bool {
		if _, name, err := from.call(s.Spec.ClusterIPs[0], "70"); err == nil {
			names[name] = true
		}
		return len(names) == len(c.nodes)
	})
}

// awaitCall waits until a Service answers, that is, until kube-proxy has made the rules of the
// Service.
func (c *cluster) awaitCall(from place, ip, port string) {
	c.Helper()
	var err error
	if !until(func() bool { _, _, err = from.call(ip, port); return err == nil }) {
		c.Fatalf("%s does not reach the Service %s: %v", from.name, net.JoinHostPort(ip, port), err)
	}
}

// checkAnswer checks that a request to a Service gets its answer from the right pod. want is the
// caller's IP address that the pod must see, or "" for any address.
func (c *cluster) checkAnswer(from place, ip, port string, to pod, want string) {
	c.Helper()
	caller, name, err := from.call(ip, port)
	if err != nil || name != to.Metadata.Name || want != "" && caller != want {
		c.Errorf("from %s to %s of %s on %s: answer of %q to %q, want %q (%v)", from.name, net.JoinHostPort(ip, port), to.Metadata.Name, to.Spec.NodeName, name, caller, want, err)
	}
}

// address returns the pod's address of the IP family that the address in the parameter other has.
func (p pod) address(other string) string {
	for _, ip := range p.Status.PodIPs {
		if netip.MustParseAddr(ip.IP).Is4() == netip.MustParseAddr(other).Is4() {
			return ip.IP
		}
	}
	return ""
}
