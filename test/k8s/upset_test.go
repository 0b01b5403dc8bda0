package k8s

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// testKills kills containerd, the kubelet and the node agent of one node, one after another. It
// checks that pods keep running, and that new pods start.
func (c *cluster) testKills() {
	c.Helper()
	n := c.nodes[0]
	ids := func() (list []string) {
		for _, p := range c.pods() {
			list = append(list, p.Metadata.UID)
		}
		slices.Sort(list)
		return list
	}
	before, routes := ids(), c.written()
	for _, program := range []string{"containerd", "kubelet", "bridgeveth-node"} {
		if program == "bridgeveth-node" {
			pid := n.run("pgrep", "-x", program)
			n.run("kill", "-KILL", strings.TrimSpace(pid))
			await(c, "a new agent", func() bool { out, err := n.try("pgrep", "-x", program); return err == nil && out != pid })
		} else {
			n.kill(program)
		}
		c.apply(strings.ReplaceAll(oncePod, "NODE", n.name))
		c.kubectl("wait", "pod", "once", "--for", "jsonpath={.status.phase}=Succeeded", "--timeout", "5m")
		c.kubectl("delete", "pod", "once")
		if now := ids(); !slices.Equal(now, before) {
			c.Errorf("%s killed: pods are now %v, were %v", program, now, before)
		}
		c.checkPods(program + " killed")
	}
	c.awaitAgents()
	if now := c.written(); now != routes {
		c.Errorf("killed programs have changed something: before\n%s\nafter\n%s", routes, now)
	}
	c.awaitNothingLeft(n, 1)
}

// oncePod is the manifest of a pod that ends by itself. The test replaces NODE by the name of a
// node.
const oncePod = `apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  nodeName: NODE
  restartPolicy: Never
  containers: [{name: once, image: ` + podImage + `, imagePullPolicy: Never, command: [/bin/busybox, "true"]}]
`

// staticPod is the manifest of a pod that the kubelet starts from a file, without the API server.
const staticPod = `apiVersion: v1
kind: Pod
metadata: {name: static, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: static, image: ` + podImage + `, imagePullPolicy: Never, command: [/bin/busybox, sleep, "3600"]}]
`

// withoutAPI is how long testWithoutAPI keeps the API server stopped.
const withoutAPI = time.Minute

// testWithoutAPI stops the API server. It checks that the node agents change nothing, that running
// pods stay reachable, and that static pods start and end.
func (c *cluster) testWithoutAPI() {
	c.Helper()
	before, pods := c.written(), c.pods()
	c.stopAPI()
	back := time.Now().Add(withoutAPI)
	for round := 0; round == 0 || time.Now().Before(back); round++ {
		addresses := []string{}
		for _, n := range c.nodes {
			c.write(filepath.Join(n.dir, "static.yaml"), staticPod)
			n.run("cp", filepath.Join(n.dir, "static.yaml"), "/etc/kubernetes/manifests/")
		}
		for _, n := range c.nodes {
			await(c, "a pod on "+n.name+" without the API server", func() bool {
				fields := strings.Fields(n.run("sh", "-c", "/opt/cni/bin/bvctl leases | grep default/static- || true"))
				if len(fields) > 1 {
					address, _, _ := strings.Cut(fields[1], "/")
					addresses = append(addresses, address)
				}
				return len(fields) > 1
			})
		}
		for _, p := range pods {
			for _, ip := range p.Status.PodIPs {
				addresses = append(addresses, ip.IP)
			}
		}
		for _, n := range c.nodes {
			for _, ip := range addresses {
				await(c, fmt.Sprintf("an answer of %s to %s", ip, n.name), func() bool { _, err := n.try("ping", "-n", "-c", "1", "-W", "5", ip); return err == nil })
			}
			n.run("rm", "/etc/kubernetes/manifests/static.yaml")
		}
		for _, n := range c.nodes {
			c.awaitNothingLeft(n, 1)
		}
	}
	await(c, "news of the API server's end", func() bool {
		out, err := c.nodes[0].try("curl", "-s", "127.0.0.1:9097/readyz")
		return err == nil && strings.Contains(out, "ready\nwarning: the API server does not answer")
	})
	if after := c.written(); after != before {
		c.Errorf("changed while the API server was stopped: before\n%s\nafter\n%s", before, after)
	}
	c.startAPI()
	c.awaitReady()
	c.checkPods("API server back")
}

// awaitNothingLeft waits until a node has no host ports, and exactly the bridge ports, network
// namespaces, leases and libcni records that the given number of pods needs.
func (c *cluster) awaitNothingLeft(n *node, pods int) {
	c.Helper()
	leases := pods * len(c.controlIPs())
	want := fmt.Sprintf("ports %d, namespaces %d, leases %d, records %d, host ports 0", pods, pods, leases, pods)
	got := ""
	if !until(func() bool {
		got, _ = n.try("sh", "-c", `count() { grep -c "$@" || true; }
			echo "ports $(ip -o link show master cni0 2>/dev/null | count .)," "namespaces $(ls /run/netns | count .)," \
				"leases $(/opt/cni/bin/bvctl leases -o json | count '"address"')," "records $(ls /var/lib/cni/results | count -v -- -lo$)," \
				"host ports $(nft list map ip bridgeveth ports 2>/dev/null | count ' comment ')"`)
		got = strings.TrimSpace(got)
		return got == want
	}) {
		c.Errorf("%s has %q, want %q", n.name, got, want)
	}
}
