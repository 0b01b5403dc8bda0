package containerd

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// ctrRun returns the arguments of a ctr command that runs a container on the network.
func (n *node) ctrRun(how, name string, command ...string) []string {
	return append([]string{"run", how, "--cni", "--cgroup", "/" + n.cgroup + "/" + name, image, name}, command...)
}

// TestCtr checks containers of `ctr run --cni`, which calls DEL without a namespace. If DEL fails,
// ctr only logs the error, so the test reads the log.
func TestCtr(t *testing.T) {
	each(t, func(n *node) {
		n.ctr("images", "import", "--index-name", image, archive)
		var said strings.Builder
		serving := exec.Command(filepath.Join(n.bin, "ctr"), n.ctrRun("--rm", "server", server...)...)
		serving.Stderr = &said
		if err := serving.Start(); err != nil {
			n.Fatal(err)
		}
		harness.Await(n, "a lease", func() bool { return len(leases(n)) == 1 })
		address, _, _ := strings.Cut(leases(n)[0], "/")
		harness.Await(n, "the web server", func() bool { return n.get(n.host, address+":80") })
		n.ctr(n.ctrRun("--rm", "client", "ping", "-c", "1", "-W", "2", address)...)

		n.ctr("tasks", "kill", "--signal", "SIGKILL", "server")
		if err := serving.Wait(); err == nil || strings.Contains(said.String(), "level=error") {
			n.Errorf("ctr run of a container that was killed: %v: %s", err, said.String())
		}
		n.nothingLeft()
	})
}

// TestCtrDetached checks containers that ctr runs in the background. From containerd 1.7 on, `ctr
// tasks kill` calls DEL, whichever signal it sends. No other command of ctr calls DEL. A container
// that ends in another way therefore keeps its lease until somebody releases it.
func TestCtrDetached(t *testing.T) {
	each(t, func(n *node) {
		n.ctr("images", "import", "--index-name", image, archive)
		n.ctr(n.ctrRun("--detach", "killed", server...)...)
		address, _, _ := strings.Cut(leases(n)[0], "/")
		harness.Await(n, "the web server", func() bool { return n.get(n.host, address+":80") })
		n.ctr("tasks", "kill", "--signal", "SIGCONT", "killed") // SIGCONT does not end the container
		if held := leases(n); (len(held) == 1) != n.forgets {
			n.Errorf("after ctr tasks kill: leases %q", held)
		}
		if n.get(n.host, address+":80") != n.forgets {
			n.Errorf("after ctr tasks kill the web server answers: %t", !n.forgets)
		}
		n.ctr("tasks", "kill", "--signal", "SIGKILL", "killed")
		n.removeDetached("killed")
		if n.forgets {
			n.releaseLease("killed")
		} else {
			n.nothingLeft()
		}

		n.ctr(n.ctrRun("--detach", "ended")...)
		n.removeDetached("ended")
		n.releaseLease("ended")
	})
}

// removeDetached removes a container that runs in the background. First it removes the container's
// task, which is containerd's term for the running processes.
func (n *node) removeDetached(name string) {
	n.Helper()
	n.ctr("tasks", "rm", "--force", name)
	n.ctr("containers", "rm", name)
}

// releaseLease releases the only lease by bvctl. The lease must belong to the container with the
// given name, which no longer exists.
func (n *node) releaseLease(name string) {
	n.Helper()
	bvctl := func(args ...string) string { return setuptest.Run(n, "/opt/cni/bin/bvctl", args...) }
	container := "default-" + name
	if out := bvctl("leases"); !strings.Contains(out, container[:12]) || !strings.Contains(out, " gone") {
		n.Errorf("the lease of %s is not shown as one that is gone:\n%s", container, out)
	}
	// The kernel deletes the links of a network namespace, and with them the bridge port, some time
	// after the end of the namespace. Until then, bvctl reports that the lease is in use.
	harness.Await(n, "the end of the port of "+container, func() bool { return setuptest.Run(n, "ip", "-o", "link", "show", "type", "bridge_slave") == "" })
	bvctl("leases", "release", "--container", container)
	if held := leases(n); len(held) > 0 {
		n.Errorf("released, but still leased: %q", held)
	}
}
