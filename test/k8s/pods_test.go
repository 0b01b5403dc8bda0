package k8s

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
)

// pods is the manifest of a DaemonSet and its Service. Each pod answers HTTP requests with the
// caller's IP address and the pod's own name.
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
          printf '#!/bin/busybox sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho $REMOTE_ADDR $(/bin/busybox hostname)\n' >/www/cgi-bin/peer
          /bin/busybox chmod 755 /www/cgi-bin/peer
          /bin/busybox dd if=/dev/zero of=/www/big bs=65536 count=16
          exec /bin/busybox httpd -f -p 7000 -h /www
        readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 70, targetPort: 7000}], ipFamilyPolicy: PreferDualStack}
`

type pod struct {
	Metadata struct{ Name, UID, DeletionTimestamp string }
	Spec     struct{ NodeName string }
	Status   struct{ PodIPs []struct{ IP string } }
}

// checkBig checks that each pod can read a megabyte from every other pod, in packets of full size.
func (c *cluster) checkBig() {
	c.Helper()
	pods := c.pods()
	for _, from := range pods {
		for _, to := range pods {
			for _, ip := range to.Status.PodIPs {
				if from.Metadata.Name == to.Metadata.Name {
					continue
				}
				size, err := c.from(from).run("sh", "-c", "/bin/busybox timeout 20 /bin/busybox wget -qO- http://"+net.JoinHostPort(ip.IP, "7000")+"/big | /bin/busybox wc -c")
				if err != nil || size != "1048576" {
					c.Errorf("from %s to %s: a megabyte arrives as %q (%v)", from.Spec.NodeName, ip.IP, size, err)
				}
			}
		}
	}
	c.Logf("packets of full size pass")
}

// awaitNodes waits until every node has a Node object with pod ranges.
func (c *cluster) awaitNodes() {
	c.Helper()
	await(c, "all nodes with their ranges", func() bool {
		out, err := c.try("get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDRs}")
		return err == nil && strings.Count(out, "[") == len(c.nodes)
	})
}

// ready returns the statuses of the condition Ready of all nodes, such as "True False".
func (c *cluster) ready() string {
	c.Helper()
	return c.kubectl("get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
}

func (c *cluster) awaitReady() {
	c.Helper()
	c.kubectl("wait", "node", "--all", "--for", "condition=Ready", "--timeout", "5m")
}

// pods returns the pods of the DaemonSet web, without those that are being deleted.
func (c *cluster) pods() []pod {
	c.Helper()
	var list struct{ Items []pod }
	c.get(&list, "pods", "-l", "app=web")
	return slices.DeleteFunc(list.Items, func(p pod) bool { return p.Metadata.DeletionTimestamp != "" })
}

// place is where a request comes from: a pod, a node, or the outside of the cluster.
type place struct {
	name string
	pod  *pod
	run  func(args ...string) (string, error)
}

func (c *cluster) from(p pod) place {
	return place{"pod " + p.Metadata.Name, &p, func(args ...string) (string, error) {
		return c.try(append([]string{"exec", p.Metadata.Name, "--", "/bin/busybox"}, args...)...)
	}}
}

func onNode(n *node) place { return place{n.name, nil, n.try} }

func (c *cluster) outside() place {
	return place{"outside", nil, func(args ...string) (string, error) {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}}
}

// call sends an HTTP request to an IP address and port. The pod that answers returns the caller's
// IP address, as the pod sees it, and the pod's name. A request without an answer ends after ten
// seconds, so that the caller can open a new connection. The old connection cannot work if it began
// before kube-proxy had made the rules of a Service, because conntrack has then recorded a wrong
// destination.
func (p place) call(ip, port string) (caller, name string, err error) {
	args := []string{"timeout", "10", "curl", "-gsS"}
	if p.pod != nil {
		args = []string{"timeout", "10", "/bin/busybox", "wget", "-qO-"}
	}
	answer, err := p.run(append(args, "http://"+net.JoinHostPort(ip, port)+"/cgi-bin/peer")...)
	caller, name, _ = strings.Cut(strings.TrimSpace(answer), " ")
	a, parseErr := netip.ParseAddr(strings.Trim(caller, "[]"))
	if err = errors.Join(err, parseErr); err != nil {
		return "", "", fmt.Errorf("%w: %s", err, answer)
	}
	return a.Unmap().String(), name, nil
}

// checkPods waits until a pod runs on each node. It checks that each pod reaches every other pod,
// and that the receiver sees the sender's own IP address.
func (c *cluster) checkPods(when string) {
	c.Helper()
	c.kubectl("rollout", "status", "daemonset/web", "--timeout", "5m")
	var pods []pod
	await(c, "a pod on each node", func() bool {
		pods = c.pods()
		return len(pods) == len(c.nodes) && !slices.ContainsFunc(pods, func(p pod) bool { return len(p.Status.PodIPs) != len(c.controlIPs()) })
	})
	for _, from := range pods {
		for _, to := range pods {
			for i, ip := range to.Status.PodIPs {
				if from.Metadata.Name == to.Metadata.Name {
					continue
				}
				if caller, _, err := c.from(from).call(ip.IP, "7000"); err != nil || caller != from.Status.PodIPs[i].IP {
					c.Errorf("%s: from %s to %s: caller %q, want %s (%v)", when, from.Spec.NodeName, ip.IP, caller, from.Status.PodIPs[i].IP, err)
				}
			}
		}
	}
	c.Logf("%s: packets pass", when)
}

// awaitAgents waits until every node runs the current version of the node agent.
func (c *cluster) awaitAgents() {
	c.kubectl("-n", "kube-system", "rollout", "status", "daemonset/bridgeveth-node", "--timeout", "5m")
}

// awaitPod waits until the pod on a node works after a new start of the node or of its kubelet. The
// pod works if the kubelet can run a command in it, and the command gets the pod's own answer from
// the address in the pod's status. The status alone is no proof, because the API server may still
// have the status from before the new start.
func (c *cluster) awaitPod(n *node) {
	c.Helper()
	await(c, "the pod on "+n.name, func() bool {
		return slices.ContainsFunc(c.pods(), func(p pod) bool {
			if p.Spec.NodeName != n.name || len(p.Status.PodIPs) == 0 {
				return false
			}
			_, name, err := c.from(p).call(p.Status.PodIPs[0].IP, "7000")
			return err == nil && name == p.Metadata.Name
		})
	})
}

// podOn returns the pod of the DaemonSet web on a node.
func (c *cluster) podOn(n *node) pod {
	c.Helper()
	pods := c.pods()
	i := slices.IndexFunc(pods, func(p pod) bool { return p.Spec.NodeName == n.name })
	if i < 0 {
		c.Fatalf("no pod on %s", n.name)
	}
	return pods[i]
}
