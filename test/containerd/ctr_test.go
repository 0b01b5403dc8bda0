package containerd

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// ctrRun is a command of ctr that runs a container on the network.
func (n *node) ctrRun(how, name string, command ...string) []string {
	return append([]string{"run", how, "--cni", "--cgroup", "/" + n.cgroup + "/" + name, image, name}, command...)
}

// TestCtr runs containers by ctr run --cni, which calls DEL without a namespace.
func TestCtr(t *testing.T) {
	each(t, func(n *node) {
		n.ctr("images", "import", "--index-name", image, archive)
		var said strings.Builder
		serving := exec.Command(filepath.Join(n.bin, "ctr"), n.ctrRun("--rm", "server", server...)...)
		serving.Stderr = &said
		if err := serving.Start(); err != nil {
			n.Fatal(err)
		}
		await(n, "a lease", func() bool { return len(leases(n)) == 1 })
		address, _, _ := strings.Cut(leases(n)[0], "/")
		await(n, "the web server", func() bool { return n.get(n.host, address+":80") })
		n.ctr(n.ctrRun("--rm", "client", "ping", "-c", "1", "-W", "2", address)...)

		n.ctr("tasks", "kill", "--signal", "SIGKILL", "server")
		if err := serving.Wait(); err == nil || strings.Contains(said.String(), "failed to remove network") {
			n.Errorf("ctr run of a container that was killed: %v: %s", err, said.String())
		}
		n.nothingLeft()
	})
}

// TestCtrDetached runs a container that ctr does not wait for. ctr calls DEL when it removes
// the task; that of 1.6 never does, and leaves it to whoever looks at the leases.
func TestCtrDetached(t *testing.T) {
	each(t, func(n *node) {
		n.ctr("images", "import", "--index-name", image, archive)
		n.ctr(n.ctrRun("--detach", "server")...)
		n.ctr("tasks", "kill", "--signal", "SIGKILL", "server")
		n.ctr("tasks", "rm", "--force", "server")
		n.ctr("containers", "rm", "server")
		if !n.forgets {
			n.nothingLeft()
			return
		}
		bvctl := func(args ...string) string { return setuptest.Run(n, "/opt/cni/bin/bvctl", args...) }
		if out := bvctl("leases"); !strings.Contains(out, "default-serv") || !strings.Contains(out, " gone") {
			n.Errorf("the lease is not shown as one that is gone:\n%s", out)
		}
		bvctl("leases", "release", "--container", "default-server")
		if held := leases(n); len(held) > 0 {
			n.Errorf("released, and held still: %q", held)
		}
	})
}
