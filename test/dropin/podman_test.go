package dropin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// podmanConf is podman's configuration, without the folder of the network configurations. All files
// of podman are below /run. podman uses no cgroups, because the test has no cgroup of its own.
const podmanConf = `[containers]
cgroups = "disabled"
seccomp_profile = "unconfined"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
%s
[network]
network_config_dir = "/run/podman/net.d"
%s`

// podman runs podman commands in the test's host.
type podman struct {
	t       testing.TB
	program string
}

// newPodman returns podman 4.3, which runs the plugins of one folder.
func newPodman(t testing.TB, plugins string) *podman {
	t.Helper()
	root := os.Getenv("PODMAN_ROOT")
	if _, err := os.Stat(root + "/bin/podman"); root == "" || err != nil {
		t.Skip("LISTED SKIP: no podman in PODMAN_ROOT; run make test where Debian's packages can be had")
	}
	return startPodman(t, root+"/bin/podman", root+"/root/bin/busybox", fmt.Sprintf(podmanConf,
		fmt.Sprintf("conmon_path = [\"%[1]s/bin/conmon\"]\n[engine.runtimes]\ncrun = [\"%[1]s/bin/crun\"]", root),
		fmt.Sprintf("network_backend = \"cni\"\ncni_plugin_dirs = [%q]\n", plugins)))
}

// startPodman prepares the test's host for a podman with this configuration, and imports an image
// that contains only busybox.
func startPodman(t testing.TB, program, busybox, conf string) *podman {
	t.Helper()
	p := &podman{t, program}
	if uids, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(uids))) != 3 || strings.Fields(string(uids))[2] == "1" {
		t.Skip("LISTED SKIP: podman as root needs root outside of a user namespace")
	}
	// podman needs /dev/shm for its locks, and crun reads the cgroups.
	setuptest.Run(t, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
	setuptest.Run(t, "mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
	// /run/netns must be a shared mount. Otherwise podman would mount a new folder over it, which
	// would hide the existing namespaces.
	setuptest.Run(t, "sh", "-c", "mkdir /run/netns; mount --bind /run/netns /run/netns; mount --make-rshared /run/netns")
	image := "/run/podman/image"
	must(t, os.MkdirAll("/run/podman/home/.config/containers", 0o755))
	must(t, os.MkdirAll(image+"/bin", 0o755))
	must(t, os.WriteFile("/run/podman/home/.config/containers/policy.json", []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600))
	setuptest.Run(t, "cp", busybox, image+"/bin/busybox")
	setuptest.Run(t, "tar", "-C", image, "-cf", image+".tar", ".")
	must(t, os.WriteFile("/run/podman/containers.conf", []byte(conf), 0o600))
	p.run("import", image+".tar", "image")
	t.Cleanup(func() { p.run("rm", "-f", "-t", "0", "-a") })
	return p
}

// run runs a podman command and fails the test if the command fails.
func (p *podman) run(args ...string) string {
	p.t.Helper()
	command := []string{"CONTAINERS_CONF=/run/podman/containers.conf", "HOME=/run/podman/home", "TMPDIR=/run/podman",
		p.program, "--root", "/run/podman/storage", "--runroot", "/run/podman/state", "--storage-driver", "vfs"}
	return strings.TrimSpace(setuptest.Run(p.t, "env", append(command, args...)...))
}

// up starts a container that answers "hello" at port 80. It returns the container's address.
func (p *podman) up(name string, options ...string) string {
	p.t.Helper()
	args := append([]string{"run", "-d", "--name", name, "--network", "one"}, options...)
	p.run(append(args, "image", "/bin/busybox", "sh", "-c", "while echo hello | /bin/busybox nc -l -p 80; do :; done")...)
	return p.run("inspect", "-f", "{{.NetworkSettings.Networks.one.IPAddress}}", name)
}

// TestPodman runs podman 4.3 while the policy of FORWARD is DROP, as on a host with Docker. It
// checks that containers reach each other, and that the host reaches them. Host ports are reachable
// from outside with our plugins, but not with the reference plugins.
func TestPodman(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, dir, outside string
	}{{"reference", reference, ""}, {"ours", ours, "hello\n"}} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			p := newPodman(t, tt.dir)
			outside := n.outside()
			before := setuptest.Dump(t)
			p.run("network", "create", "--subnet", "10.89.5.0/24", "one")
			if conf, err := os.ReadFile("/run/podman/net.d/one.conflist"); err != nil || !strings.Contains(string(conf), `"type": "bridge"`) {
				t.Fatalf("podman has not written a configuration for bridge: %v %s", err, conf)
			}
			web := p.up("web", "-p", "8080:80")
			if got := p.up("client", "--ip", "10.89.5.77"); got != "10.89.5.77" {
				t.Errorf("the client has %s, want the requested address 10.89.5.77", got)
			}
			p.run("network", "reload", "-a")
			p.run("exec", "client", "/bin/busybox", "ping", "-c", "1", "-W", "1", web)
			if got := answers(t, n.Namespace, web+":80"); got != "hello\n" {
				t.Errorf("the container answers %q to the host", got)
			}
			if got := answers(t, n.Namespace, "192.0.2.1:8080"); got != "hello\n" {
				t.Errorf("the host port answers %q to the host", got)
			}
			if got := answers(t, outside, "192.0.2.1:8080"); got != tt.outside {
				t.Errorf("the host port answers %q from outside, want %q", got, tt.outside)
			}
			if tt.dir == ours {
				repairs(t, outside)
			}
			p.run("stop", "-t", "0", "web")
			if got := ask(t, n.Namespace, "192.0.2.1:8080"); got != "" {
				t.Errorf("the host port of a container that is stopped answers %q", got)
			}
			p.run("start", "web")
			if got := answers(t, outside, "192.0.2.1:8080"); got != tt.outside {
				t.Errorf("started again, it answers %q", got)
			}
			p.run("rm", "-f", "-t", "0", "-a")
			p.run("network", "rm", "one")
			diff := cmp.Diff(before, setuptest.Dump(t))
			if (diff == "") != (tt.dir == ours) {
				t.Errorf("podman left traces (-before +after):\n%s", diff)
			}
			if left, err := filepath.Glob("/run/netns/*"); err != nil || len(left) > 1 { // one file is the namespace "outside"
				t.Errorf("namespaces are left: %v, %v", left, err)
			}
		})
	}
}

// answers sends a request again and again for up to two seconds, until an answer comes. The server
// in the container does not listen between two connections.
func answers(t testing.TB, from *setup.Namespace, address string) (answer string) {
	t.Helper()
	for start := time.Now(); answer == "" && time.Since(start) < 2*time.Second; time.Sleep(20 * time.Millisecond) {
		answer = ask(t, from, address)
	}
	return answer
}

// repairs flushes the rules, and checks that bvctl repair restores them from libcni's records,
// which podman has made.
func repairs(t *testing.T, outside *setup.Namespace) {
	t.Helper()
	setuptest.Run(t, "sh", "-c", "iptables -F; nft flush table ip bridgeveth")
	if got := ask(t, outside, "192.0.2.1:8080"); got != "" {
		t.Fatal("the host port answers without rules: the test proves nothing")
	}
	setuptest.Run(t, filepath.Join(reference, "bvctl"), "--conf-dir", "/run/podman/net.d", "repair")
	if got := answers(t, outside, "192.0.2.1:8080"); got != "hello\n" {
		t.Errorf("after bvctl repair the host port answers %q", got)
	}
}
