package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// image is the image of all containers in the tests. It contains busybox, and its default command
// sleeps.
const image = "docker.io/library/busybox:latest"

// daemonConfig is containerd's configuration. It switches AppArmor off, and does not lower OOM
// scores, because the test may lack the right to do so. Each release appends its settings for CNI
// (see the field config). "version = 2" is the version of the file format, which containerd 1.6 and
// 2.x can read.
const daemonConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  sandbox_image = "` + image + `"
`

// daemonLog is the file of containerd's log.
const daemonLog = "/run/containerd.log"

// root is the folder into which hack/containerd.sh has downloaded programs.
var root = os.Getenv("CONTAINERD_ROOT")

// archive is the file with the image of all containers.
var archive = filepath.Join(root, "image.tar")

// release is a release of containerd with which the tests run.
type release struct {
	name, bin string
	silent    bool   // this release does not call STATUS
	forgets   bool   // ctr of this release does not call DEL for containers that run in the background
	config    string // is appended to daemonConfig
	remedy    string // is printed if this release is not installed
}

// pluginFolder is the setting of containerd that docs/containerd.md gives for Debian 13. Without
// this setting, Debian 13's containerd looks for plugins in /usr/lib/cni.
const pluginFolder = `  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
`

const packages = "run make test where Debian's packages can be had"

var releases = []release{
	{"debian", filepath.Join(root, "debian"), true, true, "", packages},
	{"trixie", filepath.Join(root, "trixie"), true, false, pluginFolder, packages},
	{"2", os.Getenv("CONTAINERD2_BIN"), false, false, "", "run make test-runtimes"},
}

// each runs a test with each installed release of containerd, each time on a new host.
func each(t *testing.T, test func(n *node)) {
	t.Parallel()
	for _, r := range releases {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(filepath.Join(r.bin, "containerd")); err != nil {
				t.Skip("LISTED SKIP: no containerd of release " + r.name + ": " + r.remedy)
			}
			uids, err := os.ReadFile("/proc/self/uid_map")
			if f := strings.Fields(string(uids)); err != nil || len(f) != 3 || f[2] == "1" {
				t.Skip("LISTED SKIP: containerd needs root outside of a user namespace")
			}
			setuptest.InPIDNamespace(t, func() { test(newNode(t, r)) })
			removeCgroups(t) // in both processes, so that removeCgroups also runs if the inner process fails
		})
	}
}

// node is a host with containerd. The policy of FORWARD is DROP.
type node struct {
	*testing.T
	release
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	host    *setup.Namespace // 192.0.2.1
	outside *setup.Namespace // 192.0.2.2
	cgroup  string
	before  state
	kill    func() // ends containerd by SIGKILL
}

func newNode(t *testing.T, r release) *node {
	t.Helper()
	host, err := setup.CurrentHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	n := &node{T: t, release: r, cgroup: cgroup(t), host: host.Namespace, outside: setuptest.Container(t, "outside")}
	err = setup.Join(
		setup.End{Namespace: host.Namespace, Interface: "uplink", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		setup.End{Namespace: n.outside, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}})
	if err != nil {
		t.Fatal(err)
	}
	setuptest.DropForward(t, "iptables", "ip6tables")
	prepare(t, daemonConfig+r.config)
	n.Cleanup(func() {
		said, err := os.ReadFile(daemonLog)
		for line := range strings.Lines(string(said)) {
			if n.Failed() && !strings.Contains(line, " level=info ") {
				n.Logf("containerd: %s", line)
			}
		}
		if err != nil {
			n.Error(err)
		}
	})
	n.start()
	n.ctr("-n", "k8s.io", "images", "import", "--index-name", image, archive)
	harness.Await(t, "the image", func() bool {
		got, err := n.images.ImageStatus(n.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
		return err == nil && got.Image != nil
	})
	n.before = n.look()
	return n
}

// start starts containerd and waits until it serves requests. containerd ends with the test.
func (n *node) start() {
	n.Helper()
	log, err := os.OpenFile(daemonLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(n.bin, "containerd"))
	cmd.Env = append(os.Environ(), "PATH="+n.bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // ended by a signal
	end := func(s syscall.Signal) {
		_ = cmd.Process.Signal(s) // containerd may have ended already
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			n.Errorf("containerd does not end by %s", s)
		}
	}
	n.kill = func() { end(syscall.SIGKILL) }
	n.Cleanup(func() { end(syscall.SIGTERM) })
	socket, err := grpc.NewClient("unix:///run/containerd/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { socket.Close() })
	n.runtime, n.images = cri.NewRuntimeServiceClient(socket), cri.NewImageServiceClient(socket)
	harness.Await(n, "containerd", func() bool {
		select {
		case <-ended:
			n.Fatal("containerd has ended")
		default:
		}
		ctx, cancel := context.WithTimeout(n.Context(), time.Second)
		defer cancel()
		_, err := n.runtime.Status(ctx, &cri.StatusRequest{}, grpc.WaitForReady(true))
		return err == nil
	})
}

// ctr runs ctr, the command-line client of containerd.
func (n *node) ctr(args ...string) {
	n.Helper()
	setuptest.Run(n, filepath.Join(n.bin, "ctr"), args...)
}

// conflist is the path of the network configuration.
const conflist = "/etc/cni/net.d/10-containerd.conflist"

// configure writes the shipped network configuration, with other values of the given bridgeveth
// keys. It waits until containerd has loaded the file.
func (n *node) configure(keys map[string]any) {
	n.Helper()
	shipped, err := os.ReadFile("../../conf/10-containerd.conflist")
	if err != nil {
		n.Fatal(err)
	}
	var list map[string]any
	if err := json.Unmarshal(shipped, &list); err != nil {
		n.Fatal(err)
	}
	for key, value := range keys {
		list["plugins"].([]any)[0].(map[string]any)[key] = value
	}
	changed, err := json.Marshal(list)
	if err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(conflist+".new", changed, 0o600); err != nil {
		n.Fatal(err)
	}
	if err := os.Rename(conflist+".new", conflist); err != nil {
		n.Fatal(err)
	}
	harness.Await(n, "containerd to read its configuration", func() bool {
		s, err := n.runtime.Status(n.Context(), &cri.StatusRequest{Verbose: true})
		if err != nil {
			n.Fatal(err)
		}
		var known struct {
			Networks []struct{ Config struct{ Source string } }
		}
		if err := json.Unmarshal([]byte(s.Info["cniconfig"]), &known); err != nil {
			n.Fatalf("%v: %s", err, s.Info["cniconfig"])
		}
		for _, network := range known.Networks {
			if network.Config.Source == string(changed) {
				return true
			}
		}
		return false
	})
}

// get sends an HTTP request from a namespace to a container's web server. It reports whether the
// answer is the page in the test's image.
func (n *node) get(from *setup.Namespace, address string) (answered bool) {
	n.Helper()
	err := from.Do(func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return nil //nolint:nilerr // no answer
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // fails only on a closed connection
		if _, err := fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return nil //nolint:nilerr // no answer
		}
		page, err := io.ReadAll(c)
		answered = err == nil && strings.HasSuffix(string(page), "\r\nhere\n")
		return nil
	})
	if err != nil {
		n.Fatal(err)
	}
	return answered
}
