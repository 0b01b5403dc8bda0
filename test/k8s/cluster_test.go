package k8s

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

const (
	controlIP  = "172.30.0.1"
	controlIP6 = "fd00:172:30::1"
	cgroup     = "bridgeveth-test-k8s" // below the root of each hierarchy of cgroups on the machine
	podImage   = "docker.io/library/busybox:latest"
	agentImage = "ghcr.io/bridgeveth/bridgeveth-node:latest" // the name in deploy/
)

// shape holds the properties that differ between the tests' clusters.
type shape struct {
	nodes     int
	proxy     string // mode of kube-proxy: iptables or nftables
	ipv6      bool   // IPv6 alone; otherwise IPv4 and IPv6
	firewalld string // root folder of an unpacked firewalld, which runs on all nodes; "" for none
}

// cidrs returns the IP ranges of pods and those of Services.
func (s shape) cidrs() (pods, services string) {
	if s.ipv6 {
		return "fd00:10:244::/56", "fd00:10:96::/112"
	}
	return "10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"
}

// controlIPs returns the IP addresses of the control plane, one of each IP family of the cluster.
func (s shape) controlIPs() []string {
	if s.ipv6 {
		return []string{controlIP6}
	}
	return []string{controlIP, controlIP6}
}

// k8sBin and containerdRoot are folders with programs, which hack/k8s.sh and hack/containerd.sh
// have built or downloaded.
var k8sBin, containerdRoot = os.Getenv("K8S_BIN"), os.Getenv("CONTAINERD_ROOT")

// dir is the folder for all files of a cluster. Child processes of the test get its path by the
// environment.
var dir = os.Getenv(dirVar)

const dirVar = "K8S_DIR"

func kubeconfig(user string) string { return filepath.Join(dir, user+".conf") }
func agentArchive() string          { return filepath.Join(dir, "agent.tar") }

// cluster is a control plane, which runs in the test's own namespaces, and some nodes.
type cluster struct {
	*testing.T
	shape
	api   *exec.Cmd
	nodes []*node
}

// inCluster makes a cluster of shape s, and runs a test in it.
func inCluster(t *testing.T, s shape, test func(c *cluster)) {
	for _, path := range []string{filepath.Join(k8sBin, "kube-apiserver"), filepath.Join(containerdRoot, "image.tar")} {
		if _, err := os.Stat(path); err != nil || k8sBin == "" {
			t.Skip("LISTED SKIP: no Kubernetes programs: run make test-k8s")
		}
	}
	outer := os.Getenv(dirVar) == "" // and not the process that InPIDNamespace starts
	if outer {
		dir = t.TempDir()
		t.Setenv(dirVar, dir)
		t.Cleanup(func() { removeCgroups(t, cgroup) })
	}
	setuptest.InPIDNamespace(t, func() {
		c := &cluster{T: t, shape: s}
		c.makeImage()
		c.startControl()
		for range s.nodes {
			c.addNode(near)
		}
		t.Cleanup(func() {
			if t.Failed() {
				c.showLogs()
			}
		})
		test(c)
		for _, n := range c.nodes {
			n.stop()
		}
	})
	if text, err := os.ReadFile(measured()); err == nil && outer {
		t.Logf("MEASURED: %s", text)
	}
}

// measured returns the path of a file with measured values. inCluster prints the file's text, even
// if the test passes.
func measured() string { return filepath.Join(dir, "measured") }

// underlay is a LAN that connects nodes: a bridge, and the prefixes of the nodes' IP addresses. The
// control plane is the router of the LAN.
type underlay struct{ bridge, prefix4, prefix6 string }

var near, far = underlay{"near", "172.30.0.", "fd00:172:30::"}, underlay{"far", "172.31.0.", "fd00:172:31::"}

// addNode adds a node to the cluster, connects it to a LAN, and starts it. When the node reboots,
// it keeps its IP addresses.
func (c *cluster) addNode(on underlay) *node {
	c.Helper()
	i := len(c.nodes) + 1
	n := &node{
		T: c.T, name: fmt.Sprintf("node%d", i), link: fmt.Sprintf("u-node%d", i), mac: fmt.Sprintf("02:00:00:00:00:%02x", i),
		shape: c.shape, underlay: on, ips: []string{fmt.Sprintf("%s%d", on.prefix4, 10+i), fmt.Sprintf("%s%x", on.prefix6, 0x10+i)},
	}
	if c.ipv6 {
		n.ips = n.ips[1:]
	}
	n.dir = filepath.Join(dir, n.name)
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		c.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	n.start()
	return n
}

// makeImage builds the container image of the node agent by deploy/image.sh.
func (c *cluster) makeImage() {
	c.Helper()
	bin := filepath.Join(dir, "bin")
	if err := harness.Build(bin, "bridgeveth", "bvctl"); err != nil {
		c.Fatal(err)
	}
	run(c, "go", "build", "-C", "../../cmd/bridgeveth-node", "-o", filepath.Join(bin, "bridgeveth-node"))
	run(c, "../../deploy/image.sh", bin, agentArchive())
}

// startControl makes the two LANs for nodes, and starts the control plane.
func (c *cluster) startControl() {
	c.Helper()
	for _, l := range []underlay{near, far} {
		run(c, "ip", "link", "add", l.bridge, "up", "type", "bridge")
		run(c, "ip", "addr", "add", l.prefix4+"1/24", "dev", l.bridge)
		run(c, "ip", "addr", "add", l.prefix6+"1/64", "dev", l.bridge, "nodad")
	}
	setuptest.SetSysctl(c, "ipv4/ip_forward", "1") // the router between both links
	setuptest.SetSysctl(c, "ipv6/conf/all/forwarding", "1")
	for _, key := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
		setuptest.SetSysctl(c, key, "0") // the bridge stands for a switch between the nodes, so iptables must not see its packets
	}
	key := filepath.Join(dir, "sa.key")
	run(c, "openssl", "genrsa", "-out", key, "2048")
	tokens, server := "", net.JoinHostPort(c.controlIPs()[0], "6443")
	for user, groups := range map[string]string{"admin": "system:masters", "node1": "", "node2": "", "node3": ""} {
		name := user
		if groups == "" {
			name, groups = "system:node:"+user, "system:nodes"
		}
		tokens += fmt.Sprintf("token-%s,%s,%s,%q\n", user, name, name, groups)
		c.write(kubeconfig(user), fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://%s", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: token-%s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server, user))
	}
	c.write(filepath.Join(dir, "tokens"), tokens)
	c.start("etcd", "--data-dir", filepath.Join(dir, "etcd"))
	c.startAPI()
	pods, services := c.cidrs()
	c.start(filepath.Join(k8sBin, "kube-controller-manager"), "--kubeconfig", kubeconfig("admin"), "--leader-elect=false",
		"--allocate-node-cidrs", "--cluster-cidr", pods, "--service-cluster-ip-range", services,
		"--service-account-private-key-file", key, "--root-ca-file", filepath.Join(dir, "apiserver.crt"), "--node-monitor-grace-period", "20s")
	c.start(filepath.Join(k8sBin, "kube-scheduler"), "--kubeconfig", kubeconfig("admin"), "--leader-elect=false")
}

// startAPI starts the API server, with the usual authorization modes (Node and RBAC).
func (c *cluster) startAPI() {
	c.Helper()
	key := filepath.Join(dir, "sa.key")
	_, services := c.cidrs()
	c.api = c.start(filepath.Join(k8sBin, "kube-apiserver"), "--etcd-servers", "http://127.0.0.1:2379", "--cert-dir", dir,
		"--service-cluster-ip-range", services, "--advertise-address", c.controlIPs()[0], "--token-auth-file", filepath.Join(dir, "tokens"),
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction", "--allow-privileged",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--kubelet-preferred-address-types", "InternalIP")
	await(c, "the API server", func() bool { _, err := c.try("get", "--raw", "/readyz"); return err == nil })
}

// stopAPI kills the API server.
func (c *cluster) stopAPI() {
	c.Helper()
	if err := c.api.Process.Kill(); err != nil {
		c.Fatal(err)
	}
	_ = c.api.Wait() // "signal: killed"
}

// start starts a program of the control plane.
func (c *cluster) start(program string, args ...string) *exec.Cmd {
	c.Helper()
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(program)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	return cmd
}

// try runs kubectl and returns its output.
func (c *cluster) try(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(k8sBin, "kubectl"), append([]string{"--kubeconfig", kubeconfig("admin"), "--cache-dir", filepath.Join(dir, "kube-cache")}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// kubectl runs kubectl and returns its output. It fails the test if kubectl fails.
func (c *cluster) kubectl(args ...string) string {
	c.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.Fatalf("kubectl %q: %v\n%s", args, err, out)
	}
	return out
}

// get runs `kubectl get` with the given arguments, and decodes its JSON output into a variable.
func (c *cluster) get(into any, args ...string) {
	c.Helper()
	if err := json.Unmarshal([]byte(c.kubectl(append([]string{"get", "-o", "json"}, args...)...)), into); err != nil {
		c.Fatal(err)
	}
}

// apply creates or changes objects by kubectl apply.
func (c *cluster) apply(objects string) {
	c.Helper()
	file := filepath.Join(c.TempDir(), "objects.yaml")
	c.write(file, objects)
	c.kubectl("apply", "-f", file)
}

func (c *cluster) write(path, text string) {
	c.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
}

// run runs a program and fails the test if the program fails.
func run(t testing.TB, program string, args ...string) {
	t.Helper()
	setuptest.Run(t, program, args...)
}

// makeCgroup makes, in each cgroup hierarchy, the cgroup for a node's pods.
func makeCgroup(t testing.TB, node string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/*/cgroup.procs"} {
		tops, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, top := range tops {
			if err := os.MkdirAll(filepath.Join(filepath.Dir(top), cgroup, node), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// removeCgroups removes a cgroup and all cgroups below it, in each hierarchy. When a node is
// killed, the cgroups of its pods remain.
func removeCgroups(t testing.TB, name string) {
	t.Helper()
	if !until(func() bool {
		left := 0
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			tops, _ := filepath.Glob(pattern + name) // the pattern is well-formed
			for _, top := range tops {
				var all []string
				_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error { // a cgroup may end in the meantime
					if err == nil && d.IsDir() {
						all = append(all, path)
					}
					return nil
				})
				for _, path := range slices.Backward(all) {
					if unix.Rmdir(path) != nil {
						left++
					}
				}
			}
		}
		return left == 0
	}) {
		t.Errorf("cgroup %s stays", name)
	}
}

// showLogs prints the cluster's objects and events, the logs of the node agents, and the last lines
// of the kubelets' logs.
func (c *cluster) showLogs() {
	for _, args := range [][]string{
		{"get", "nodes,pods", "-A", "-o", "wide"}, {"get", "events", "-A"},
		{"logs", "-n", "kube-system", "-l", "app=bridgeveth-node", "--all-containers", "--tail", "-1", "--prefix"},
	} {
		out, err := c.try(args...)
		c.Logf("kubectl %q (%v):\n%s", args, err, out)
	}
	for _, n := range c.nodes {
		for _, log := range []string{"node.log", "upper/var/log/kubelet.log"} {
			text, err := os.ReadFile(filepath.Join(n.dir, log))
			c.Logf("%s of %s (%v):\n%s", log, n.name, err, text[max(0, len(text)-4000):])
		}
	}
}
