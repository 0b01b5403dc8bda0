package k8s

import (
	"strings"
	"testing"
)

// TestSeen checks what the node agent reports about its node: the metrics of ADDs that containerd
// has called, the text that `bvctl node` prints, and an Event about a foreign network
// configuration. The test also sets the condition NetworkUnavailable to True, as a cloud controller
// does, and checks that the agent sets it to False.
func TestSeen(t *testing.T) {
	inCluster(t, shape{nodes: 1, proxy: "iptables"}, func(c *cluster) {
		n := c.nodes[0]
		c.awaitNodes()
		c.kubectl("patch", "node", n.name, "--subresource=status", "-p", `{"status": {"conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}]}}`)
		c.kubectl("apply", "-k", "../../deploy")
		c.awaitAgents()
		c.awaitReady()
		await(c, "the condition NetworkUnavailable at False", func() bool {
			return c.kubectl("get", "node", n.name, "-o", `jsonpath={.status.conditions[?(@.type=="NetworkUnavailable")].status}`) == "False"
		})
		c.apply(pods)
		c.kubectl("rollout", "status", "daemonset/web", "--timeout", "2m")
		if metrics := n.run("curl", "-s", "127.0.0.1:9097/metrics"); !strings.Contains(metrics, "\nbridgeveth_add_seconds_count 1\n") || strings.Contains(metrics, "bridgeveth_add_errors_total{") {
			c.Errorf("want one ADD, and no error:\n%s", metrics)
		}
		if seen := n.run("curl", "-s", "127.0.0.1:9097/node"); !strings.Contains(seen, "\nready\n") || !strings.Contains(seen, "10.244.0.0/24") || !strings.Contains(seen, "1 of 253\n") {
			c.Errorf("want one lease:\n%s", seen)
		}
		n.run("sh", "-c", `echo '{"cniVersion": "0.4.0", "name": "x", "type": "ptp"}' >/etc/cni/net.d/05-x.conf`)
		await(c, "an Event", func() bool {
			return strings.Contains(c.kubectl("get", "events", "--field-selector", "involvedObject.name="+n.name), "ForeignNetworkConfiguration")
		})
		n.run("rm", "/etc/cni/net.d/05-x.conf")
	})
}
