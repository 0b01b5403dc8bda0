package k8s

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/test/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv(nodeVar) != "" {
		fmt.Fprintln(os.Stderr, runNode())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// pods run on every node. They answer with the address of the caller.
const pods = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: ` + podImage + `
        imagePullPolicy: Never
        command:
        - /bin/busybox
        - sh
        - -c
        - |
          /bin/busybox mkdir -p /www/cgi-bin
          printf '#!/bin/busybox sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho $REMOTE_ADDR\n' >/www/cgi-bin/peer
          /bin/busybox chmod 755 /www/cgi-bin/peer
          exec /bin/busybox httpd -f -p 7000 -h /www
        readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 70, targetPort: 7000}]}
`

type pod struct {
	Metadata struct{ Name, DeletionTimestamp string }
	Spec     struct{ NodeName string }
	Status   struct{ PodIPs []struct{ IP string } }
}

// TestAgent installs the agent in a cluster of two nodes. Nodes and programs then stop and start again.
func TestAgent(t *testing.T) {
	t.Setenv(proxyModeVar, "iptables")
	inCluster(t, 2, func(c *cluster) {
		c.awaitNodes()
		if ready := c.ready(); strings.Contains(ready, "True") {
			t.Fatalf("ready without a network: %s", ready)
		}
		c.kubectl("apply", "-k", "../../deploy")
		c.awaitAgents()
		c.awaitReady()
		c.apply(pods)
		c.checkPods("fresh pods")
		c.checkService()

		c.testRestart()
		c.testWithoutAPI()
		c.testReboot()
		c.testNodeGone()
		c.testRemove()
	})
}

// TestTunnel runs a cluster in which every packet between the nodes goes through the tunnel. FORWARD
// drops all packets that no rule accepts, as on a host with Docker.
func TestTunnel(t *testing.T) {
	t.Setenv(proxyModeVar, "nftables")
	inCluster(t, 2, func(c *cluster) {
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
		c.checkService()
		for _, n := range c.nodes {
			if routes := n.run("ip", "route", "show", "proto", "97"); !strings.Contains(routes, "dev bvx0") {
				c.Errorf("%s has no route through the tunnel:\n%s", n.name, routes)
			}
			n.run("nft", "flush", "ruleset") // kube-proxy does not notice in this mode
		}
		for _, n := range c.nodes {
			harness.Await(c, "the rules of the pods of "+n.name, func() bool { return strings.Contains(n.run("nft", "list", "ruleset"), "masquerade") })
		}
		c.checkPods("after a flush of all rules")
	})
}

// testRestart replaces the agents. The nodes stay ready, and the new agents write nothing.
func (c *cluster) testRestart() {
	before := c.written()
	c.kubectl("-n", "kube-system", "delete", "pod", "-l", "app=bridgeveth-node")
	c.awaitAgents()
	if after := c.written(); after != before {
		c.Errorf("new agents have changed something: before\n%s\nafter\n%s", before, after)
	}
	c.checkPods("agents replaced")
}

// testWithoutAPI stops the API server. Everything on the nodes stays as it is.
func (c *cluster) testWithoutAPI() {
	before, pods := c.written(), c.pods()
	c.stopAPI()
	harness.Await(c, "news of the API server's end", func() bool {
		out, err := c.nodes[0].try("curl", "-s", "127.0.0.1:9097/readyz")
		return err == nil && strings.Contains(out, "ready\nwarning: the API server does not answer")
	})
	if after := c.written(); after != before {
		c.Errorf("changed while the API server was stopped: before\n%s\nafter\n%s", before, after)
	}
	for _, n := range c.nodes {
		for _, p := range pods {
			for _, ip := range p.Status.PodIPs {
				n.run("ping", "-n", "-c", "1", "-W", "5", ip.IP)
			}
		}
	}
	c.startAPI()
	c.awaitReady()
	c.checkPods("API server back")
}

// testReboot reboots a node, whose disk stays.
func (c *cluster) testReboot() {
	n := c.nodes[0]
	link := "/upper/etc/cni/net.d/10-bridgeveth.conflist"
	n.stop()
	if _, err := os.Lstat(n.dir + link); err != nil {
		c.Errorf("no configuration on the disk: the test proves nothing (%v)", err)
	}
	c.startNode(n)
	// A runtime that reads the configuration now would report the node ready, without routes.
	if out, err := n.try("cat", "/etc/cni/net.d/10-bridgeveth.conflist"); err == nil && n.run("ip", "route", "show", "proto", "97") == "" {
		c.Errorf("a configuration of the last boot, and no routes:\n%s", out)
	}
	harness.Await(c, "the routes", func() bool { out, err := n.try("ip", "route", "show", "proto", "97"); return err == nil && out != "" })
	c.awaitReady()
	c.checkPods("node rebooted")
}

// testNodeGone deletes a node, and brings it back with a new Node object.
func (c *cluster) testNodeGone() {
	first, second := c.nodes[0], c.nodes[1]
	second.stop()
	c.kubectl("delete", "node", second.name)
	harness.Await(c, "an end of the routes to the deleted node", func() bool {
		return !strings.Contains(first.run("ip", "route", "show", "proto", "97"), "via") && !strings.Contains(first.run("ip", "-6", "route", "show", "proto", "97"), "via")
	})
	c.startNode(second)
	c.awaitNodes()
	c.awaitReady()
	c.checkPods("node added")
}

// testRemove removes the agent, and what it has made.
func (c *cluster) testRemove() {
	c.kubectl("delete", "-k", "../../deploy")
	c.kubectl("-n", "kube-system", "wait", "pod", "-l", "app=bridgeveth-node", "--for", "delete", "--timeout", "2m")
	for _, n := range c.nodes {
		n.run(dir+"/bin/bridgeveth-node", "--remove")
		left := n.run("ip", "route", "show", "proto", "97") + n.run("ip", "-6", "route", "show", "proto", "97") + n.run("find", "/etc/cni/net.d", "/run/bridgeveth-node", "!", "-type", "d")
		if left != "" {
			c.Errorf("left on %s:\n%s", n.name, left)
		}
	}
}

// written returns what agents have written on the nodes.
func (c *cluster) written() (text string) {
	for _, n := range c.nodes {
		text += n.name + "\n" + n.run("ip", "route", "show", "proto", "97") + n.run("ip", "-6", "route", "show", "proto", "97") +
			n.run("stat", "-c", "%n %i", "/etc/cni/net.d/10-bridgeveth.conflist", "/run/bridgeveth-node/conflist", "/opt/cni/bin/bridgeveth")
	}
	return text
}

// awaitNodes waits until every node has registered and has its ranges.
func (c *cluster) awaitNodes() {
	c.Helper()
	harness.Await(c, "all nodes with their ranges", func() bool {
		out, err := c.try("get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDRs}")
		return err == nil && strings.Count(out, "[") == len(c.nodes)
	})
}

// ready returns the condition Ready of all nodes.
func (c *cluster) ready() string {
	c.Helper()
	return c.kubectl("get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
}

func (c *cluster) awaitReady() {
	c.Helper()
	c.kubectl("wait", "node", "--all", "--for", "condition=Ready", "--timeout", "5m")
}

// pods returns the pods that run.
func (c *cluster) pods() []pod {
	c.Helper()
	var list struct{ Items []pod }
	c.get(&list, "pods", "-l", "app=web")
	return slices.DeleteFunc(list.Items, func(p pod) bool { return p.Metadata.DeletionTimestamp != "" })
}

// checkPods waits for a pod on each node, and has each send to each other. The receiver sees the
// sender's own address.
func (c *cluster) checkPods(when string) {
	c.Helper()
	c.kubectl("rollout", "status", "daemonset/web", "--timeout", "2m")
	var pods []pod
	harness.Await(c, "a pod on each node", func() bool {
		pods = c.pods()
		return len(pods) == len(c.nodes) && !slices.ContainsFunc(pods, func(p pod) bool { return len(p.Status.PodIPs) != 2 })
	})
	for _, from := range pods {
		for _, to := range pods {
			for i, ip := range to.Status.PodIPs {
				if from.Metadata.Name == to.Metadata.Name {
					continue
				}
				if caller, err := c.call(from, ip.IP, "7000"); err != nil || caller != from.Status.PodIPs[i].IP {
					c.Errorf("%s: from %s to %s: caller %q, want %s (%v)", when, from.Spec.NodeName, ip.IP, caller, from.Status.PodIPs[i].IP, err)
				}
			}
		}
	}
	c.Logf("%s: packets pass", when)
}

// checkService has a pod of each node call the service.
func (c *cluster) checkService() {
	c.Helper()
	ip := c.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	for _, p := range c.pods() {
		harness.Await(c, "an answer of the service from "+p.Spec.NodeName, func() bool {
			_, err := c.call(p, ip, "70")
			return err == nil
		})
	}
}

// call has a pod call an address. It returns the caller's address, as the pod that answers sees it. A
// call gives up after some seconds: if kube-proxy does not know a Service yet, conntrack remembers that
// its packets go elsewhere, and the connection's next packets go there too.
func (c *cluster) call(from pod, ip, port string) (caller string, err error) {
	answer, err := c.try("exec", from.Metadata.Name, "--", "/bin/busybox", "timeout", "10", "/bin/busybox", "wget", "-qO-", "http://"+net.JoinHostPort(ip, port)+"/cgi-bin/peer")
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, answer)
	}
	a, err := netip.ParseAddr(strings.Trim(answer, "[]\n"))
	return a.Unmap().String(), err
}

// awaitAgents waits until the current agent runs on every node.
func (c *cluster) awaitAgents() {
	c.kubectl("-n", "kube-system", "rollout", "status", "daemonset/bridgeveth-node", "--timeout", "2m")
}
