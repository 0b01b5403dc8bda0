package nodes

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// big is the number of nodes in a large cluster. In such a cluster, the agent may use 80 MiB of
// memory. The constant memory is this limit in KiB.
const big, memory = 5000, 80 << 10

// TestScale checks the peak memory and the routes of the agent in a cluster of 5,000 Node objects.
// Half of the nodes are on the agent's link.
func TestScale(t *testing.T) {
	if os.Getenv("KUBE_APISERVER") == "" {
		t.Skip("LISTED SKIP: no kube-apiserver: set KUBE_APISERVER to its path")
	}
	setuptest.InHost(t, func() {
		c := newControl(t)
		setuptest.Run(t, "ip", "link", "add", "uplink0", "up", "type", "veth", "peer", "name", "lan")
		setuptest.Run(t, "ip", "link", "set", "lan", "up")
		setuptest.Run(t, "ip", "addr", "add", "172.30.0.11/16", "dev", "uplink0")
		var group errgroup.Group
		group.SetLimit(8)
		for i := range big {
			group.Go(func() error { return c.try(http.MethodPost, "/api/v1/nodes", member(i)) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // the peak varies with the load of the machine
			agent := c.startAgent("n1")
			c.await("the routes", func() bool { return routes(t) == big+i }) // the own range also has a route
			if err := c.try(http.MethodPost, "/api/v1/nodes", member(big+i)); err != nil {
				t.Fatal(err)
			}
			c.await("a route to the new node", func() bool { return routes(t) == big+i+1 })
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", agent.Process.Pid))
			if peak(string(text)) > memory || err != nil {
				t.Errorf("the agent has used %d KiB, of %d (%v)", peak(string(text)), memory, err)
			}
			kill(agent)
			setuptest.Run(t, "ip", "route", "flush", "proto", "97")
			setuptest.Run(t, "ip", "link", "del", "bvx0")
		}
	})
}

// member returns the Node object with number i. The object lists 50 images, as many as a kubelet
// reports. Images are the largest part of a real Node object.
func member(i int) object {
	n := newNode(fmt.Sprintf("n%d", i+1), fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	images := make([]object, 50)
	for k := range images {
		name := fmt.Sprintf("registry.example.com/team/application-%d", k)
		images[k] = object{"names": []string{fmt.Sprintf("%s@sha256:%064x", name, i), name + ":v1.2.3"}, "sizeBytes": 123456789}
	}
	n["status"] = object{
		"addresses": []object{{"type": "InternalIP", "address": fmt.Sprintf("172.%d.%d.%d", 30+i%2, i>>8, (i>>1)&127+11)}},
		"images":    images,
	}
	return n
}

// startAgent builds the agent and starts it for the given node.
func (c *control) startAgent(node string) *exec.Cmd {
	c.t.Helper()
	program, kubeconfig := filepath.Join(c.dir, "bridgeveth-node"), filepath.Join(c.dir, "kubeconfig")
	if out, err := exec.Command("go", "build", "-o", program, "../..").CombinedOutput(); err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, c.config.Host, c.config.BearerToken), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return c.start(program, "--kubeconfig", kubeconfig, "--node-name", node, "--conflist", filepath.Join(c.dir, "net.d", "10-x.conflist"), "--volatile-conflist=")
}

// routes counts the agent's routes.
func routes(t *testing.T) int {
	t.Helper()
	return strings.Count(setuptest.Run(t, "ip", "route", "show", "proto", "97"), "\n")
}

// peak returns the peak memory of a process in KiB. status is the text of the file
// /proc/PID/status.
func peak(status string) int {
	_, after, _ := strings.Cut(status, "VmHWM:")
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	n, _ := strconv.Atoi(number)
	return n
}
