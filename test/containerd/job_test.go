package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// server is the command that runs a web server in a container. The server serves the page in the
// test's image.
var server = []string{"httpd", "-f", "-p", "80", "-h", "/www"}

// TestPod checks that pods on one node reach each other, also through a host port, and that removed
// pods leave nothing. Without bridgeveth's FORWARD rules ("forward": "none"), a pod must not reach
// another, because the policy of FORWARD is DROP.
func TestPod(t *testing.T) {
	each(t, func(n *node) {
		n.configure(map[string]any{"forward": "none"})
		a, b := n.mustRun(n.podConfig(1)), n.mustRun(n.podConfig(2))
		if n.ping(n.container(a), b.address) == nil {
			n.Fatal(`the ping passes with "forward": "none"`)
		}
		n.nothingLeft(a, b)

		n.configure(nil)
		a, b = n.mustRun(n.podConfig(3)), n.mustRun(n.published(4))
		if want := []string{a.address + "/16 " + a.id, b.address + "/16 " + b.id}; !slices.Equal(leases(n), want) {
			n.Errorf("leases %q, want %q, as containerd says", leases(n), want)
		}
		n.container(b, server...)
		n.reachable(b)
		if err := n.ping(n.container(a), b.address); err != nil {
			n.Error(err)
		}
		for _, address := range []string{b.address + ":80", "192.0.2.1:8080"} {
			if !n.get(n.inside(a), address) {
				n.Errorf("from a pod %s does not answer", address)
			}
		}
		for _, p := range []*pod{a, b} {
			if out := setuptest.Run(n, "/opt/cni/bin/bvctl", "inspect"); !strings.Contains(out, p.id[:12]) || !strings.Contains(out, p.address) {
				n.Errorf("bvctl inspect does not list %s with %s:\n%s", p.id, p.address, out)
			}
		}

		before := n.look()
		_, err := n.run(n.published(5))
		if err == nil || !strings.Contains(err.Error(), b.id) {
			n.Errorf("a host port in use: got %v, want an error that names pod %s", err, b.id)
		}
		n.same(before, "a pod that was refused left traces")
		n.nothingLeft(a, b)
	})
}

// TestRepair flushes the rules of running pods. It checks that bvctl repair restores the rules from
// libcni's records, which containerd has made. The CNI version of such a record is the version that
// containerd uses: 0.4.0 for containerd 1.6, although the configuration also lists newer versions.
func TestRepair(t *testing.T) {
	each(t, func(n *node) {
		n.configure(nil)
		a, b := n.mustRun(n.podConfig(1)), n.mustRun(n.published(2))
		client := n.container(a)
		n.container(b, server...)
		n.reachable(b)
		bvctl := func(args ...string) (string, error) {
			out, err := exec.Command("/opt/cni/bin/bvctl", args...).CombinedOutput()
			return string(out), err
		}
		if out, err := bvctl("leases", "check"); err != nil {
			n.Errorf("leases check of healthy pods: %v: %s", err, out)
		}
		if out, err := bvctl("doctor"); err != nil {
			n.Errorf("doctor of healthy pods: %v: %s", err, out)
		}
		setuptest.Run(n, "sh", "-c", "iptables -F; ip6tables -F; nft flush table ip bridgeveth")
		if n.ping(client, b.address) == nil || n.get(n.outside, "192.0.2.1:8080") {
			n.Fatal("packets pass without rules: the test proves nothing")
		}
		if out, err := bvctl("leases", "check"); err == nil || strings.Contains(out, "remove the container") {
			n.Errorf("leases check without rules: %v: %s", err, out)
		}
		if out, err := bvctl("repair"); err != nil || !strings.Contains(out, "restored") {
			n.Errorf("repair: %v: %s", err, out)
		}
		if err := n.ping(client, b.address); err != nil {
			n.Errorf("after the repair: %v", err)
		}
		n.reachable(b)
		n.nothingLeft(a, b)
	})
}

// reachable fails the test unless the pod's web server answers two requests: one from the host to
// the pod's address, and one from a machine beyond the host to the host port.
func (n *node) reachable(p *pod) {
	n.Helper()
	harness.Await(n, "the web server", func() bool { return n.get(n.host, p.address+":80") })
	if !n.get(n.outside, "192.0.2.1:8080") {
		n.Error("from outside the host port does not answer")
	}
}

// TestRestart kills containerd and starts it again while pods run. It checks that a pod stays
// reachable, keeps its address, and that no other pod gets this address.
func TestRestart(t *testing.T) {
	each(t, func(n *node) {
		a, b := n.mustRun(n.podConfig(1)), n.mustRun(n.published(2))
		n.container(b, server...)
		n.reachable(b)
		n.kill()
		n.reachable(b)
		n.start()
		n.reachable(b)
		s, err := n.runtime.PodSandboxStatus(n.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: b.id})
		if err != nil || s.Status.State != cri.PodSandboxState_SANDBOX_READY || s.Status.Network.GetIp() != b.address {
			n.Errorf("after the restart: %v, %v", s, err)
		}
		c := n.mustRun(n.podConfig(3))
		if slices.Contains([]string{a.address, b.address}, c.address) {
			n.Errorf("%s is leased twice", c.address)
		}
		n.nothingLeft(a, b, c)
	})
}

// TestLostNamespace removes the file of a pod's network namespace before the pod is stopped.
// containerd then calls DEL without a namespace. The test checks that DEL still removes everything.
func TestLostNamespace(t *testing.T) {
	each(t, func(n *node) {
		p := n.mustRun(n.published(1))
		setuptest.Run(n, "umount", p.netns)
		if err := os.Remove(p.netns); err != nil {
			n.Fatal(err)
		}
		n.nothingLeft(p)
		// This pod uses the same host port, which must be free again.
		n.nothingLeft(n.mustRun(n.published(2)))
	})
}

// TestManyPods starts and removes 50 pods in parallel. It checks that no address is leased twice,
// and that nothing is left.
func TestManyPods(t *testing.T) {
	each(t, func(n *node) {
		pods := make([]*pod, 50)
		n.atOnce(len(pods), func(i int) (err error) { pods[i], err = n.run(n.podConfig(i)); return err })
		holder := map[string]string{}
		for _, p := range pods {
			if other, taken := holder[p.address]; taken {
				n.Errorf("%s is leased to %s and to %s", p.address, other, p.id)
			}
			holder[p.address] = p.id
		}
		if held := leases(n); len(held) != len(pods) {
			n.Errorf("%d leases for %d pods: %v", len(held), len(pods), held)
		}
		last := pods[len(pods)-1].address
		if err := n.ping(n.container(pods[0]), last); err != nil {
			n.Errorf("from the first pod to the last: %v", err)
		}
		n.atOnce(len(pods), func(i int) error { return n.remove(pods[i]) })
		n.nothingLeft()
	})
}

// atOnce calls f in parallel with each number from 0 to count-1. It fails the test if a call
// fails.
func (n *node) atOnce(count int, f func(i int) error) {
	n.Helper()
	errs := make([]error, count)
	var all sync.WaitGroup
	for i := range count {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			n.Fatal(fmt.Sprint(i, ": ", err))
		}
	}
}
