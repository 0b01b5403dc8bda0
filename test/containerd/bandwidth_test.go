package containerd

import (
	"regexp"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestBandwidth checks that a pod's annotations limit its bandwidth. Each direction has its own
// queue: packets to the pod wait at the pod's bridge port, and packets from the pod wait at an IFB
// that belongs to this port.
func TestBandwidth(t *testing.T) {
	each(t, func(n *node) {
		config := n.podConfig(1)
		config.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "20M"}
		p := n.mustRun(config)
		queues := setuptest.Run(n, "tc", "qdisc", "show")
		for _, want := range []string{`qdisc tbf .* dev veth\S+ root .* rate 10Mbit `, `qdisc tbf .* dev ifb\S+ root .* rate 20Mbit `} {
			if !regexp.MustCompile(want).MatchString(queues) {
				n.Errorf("no %q among the queues:\n%s", want, queues)
			}
		}
		n.nothingLeft(p)
	})
}
