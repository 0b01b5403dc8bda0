package k8s

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/test/harness"
)

// crowd is the manifest of a Deployment with 100 pods. A kubelet runs at most 110 pods by default.
const crowd = `apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd}
spec:
  replicas: 100
  selector: {matchLabels: {app: crowd}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: crowd}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: sleep, image: ` + podImage + `, imagePullPolicy: Never, command: [/bin/busybox, sleep, "36000"]}]
`

// referenceConflist is a network configuration with the reference plugins. Its file name comes
// before that of the node agent's configuration in alphabetical order, so a runtime uses this file
// if both exist.
const referenceConflist = `{"cniVersion": "1.0.0", "name": "reference", "plugins": [
  {"type": "bridge", "bridge": "ref0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd00:99::/64"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// TestCrowd starts and deletes 100 pods on one node, and checks that nothing is left of them. It
// measures how long the pods take to start. Rounds with our plugins and with the reference plugins
// take turns, so that other load on the machine slows both kinds of rounds.
func TestCrowd(t *testing.T) {
	inCluster(t, shape{nodes: 1, proxy: "iptables"}, func(c *cluster) {
		n := c.nodes[0]
		bin := filepath.Join(dir, "reference")
		if err := harness.Build(bin, "bridgeveth", "bridge", "host-local", "portmap"); err != nil {
			t.Fatal(err)
		}
		c.awaitNodes()
		c.kubectl("apply", "-k", "../../deploy")
		c.awaitAgents()
		c.awaitReady()
		n.run("cp", bin+"/bridge", bin+"/host-local", bin+"/portmap", "/opt/cni/bin")
		c.write(filepath.Join(bin, "conflist"), referenceConflist)
		var ours, theirs [2]time.Duration // from kubectl apply until all pods are Ready
		for i := range ours {
			c.useBridge("cni0", "rm -f /etc/cni/net.d/05-reference.conflist")
			ours[i] = c.startCrowd()
			c.endCrowd()
			c.awaitNothingLeft(n, 0)
			c.useBridge("ref0", "cp "+bin+"/conflist /etc/cni/net.d/05-reference.conflist")
			theirs[i] = c.startCrowd()
			c.endCrowd()
		}
		ratio := float64(ours[0]+ours[1]) / float64(theirs[0]+theirs[1])
		c.write(measured(), fmt.Sprintf("from apply to 100 pods Ready: %.1fs and %.1fs, with the reference plugins %.1fs and %.1fs: ratio %.2f",
			ours[0].Seconds(), ours[1].Seconds(), theirs[0].Seconds(), theirs[1].Seconds(), ratio))
	})
}

// useBridge runs a shell command that changes the network configuration, and waits until the
// runtime attaches pods to the given bridge.
func (c *cluster) useBridge(bridge, change string) {
	c.Helper()
	c.nodes[0].run("sh", "-ec", change)
	await(c, "a pod on "+bridge, func() bool {
		c.apply(strings.ReplaceAll(strings.Replace(oncePod, `"true"`, `sleep, "3600"`, 1), "NODE", c.nodes[0].name))
		c.kubectl("wait", "pod", "once", "--for", "condition=Ready", "--timeout", "5m")
		out, err := c.nodes[0].try("ip", "-o", "link", "show", "master", bridge)
		c.kubectl("delete", "pod", "once", "--grace-period", "1")
		return err == nil && out != ""
	})
}

// startCrowd starts 100 pods. It returns the time from kubectl apply until all these pods are
// Ready.
func (c *cluster) startCrowd() time.Duration {
	c.Helper()
	start := time.Now()
	c.apply(crowd)
	c.kubectl("wait", "deployment", "crowd", "--for", "jsonpath={.status.readyReplicas}=100", "--timeout", "10m")
	return time.Since(start)
}

func (c *cluster) endCrowd() {
	c.Helper()
	c.kubectl("delete", "deployment", "crowd")
	c.kubectl("wait", "pod", "-l", "app=crowd", "--for", "delete", "--timeout", "10m")
	await(c, "an end of all network namespaces", func() bool {
		return strings.TrimSpace(c.nodes[0].run("ls", "/run/netns")) == ""
	})
}
