package containerd

import (
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestStatus checks that containerd 2 calls STATUS and reports the result to the kubelet, which
// starts no pods while STATUS fails. containerd 1.x does not call STATUS, so a pod fails only at
// its ADD.
func TestStatus(t *testing.T) {
	each(t, func(n *node) {
		n.ready("at first", "")
		one := map[string]any{"ipam": map[string]any{"type": "ipam-simple", "subnet": "10.86.0.0/30"}}
		n.configure(one)
		n.ready("while an address is free", "")
		only := n.mustRun(n.podConfig(1))
		n.refused("with no address free", "no address is left", n.podConfig(2))
		n.nothingLeft(only)
		n.ready("when the address is free again", "")

		n.configure(map[string]any{"mtu": 1})
		n.refused("with a wrong configuration", "mtu: 1", n.podConfig(3))
		n.configure(nil)
		n.ready("with the shipped configuration again", "")
		n.nothingLeft(n.mustRun(n.podConfig(4)))
	})
}

// refused fails the test unless the start of a pod fails with an error that contains the text in
// the parameter why. If this release of containerd calls STATUS, containerd's own status must
// contain this text even before the pod's start.
func (n *node) refused(when, why string, config *cri.PodSandboxConfig) {
	n.Helper()
	if n.silent {
		n.ready(when, "")
	} else {
		n.ready(when, why)
	}
	if _, err := n.run(config); err == nil || !strings.Contains(err.Error(), why) {
		n.Errorf("a pod %s: %v, want %q", when, err, why)
	}
}

// ready fails the test unless containerd reports that the network is ready. If the parameter why is
// not empty, containerd must instead report that the network is not ready, in a message that
// contains the text in why.
func (n *node) ready(when, why string) {
	n.Helper()
	s, err := n.runtime.Status(n.Context(), &cri.StatusRequest{})
	if err != nil {
		n.Fatal(err)
	}
	for _, c := range s.Status.Conditions {
		if c.Type == cri.NetworkReady {
			if c.Status != (why == "") || !strings.Contains(c.Message, why) {
				n.Errorf("NetworkReady %s: %v, want %q", when, c, why)
			}
			return
		}
	}
	n.Errorf("no condition of the network: %v", s.Status.Conditions)
}
