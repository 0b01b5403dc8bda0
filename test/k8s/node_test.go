package k8s

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/test/harness"
)

// node is a machine of the cluster: it has its own network, mount, PID, UTS and IPC namespaces,
// with a containerd and a kubelet. When the node's first process ends, the kernel kills all other
// processes of the node.
type node struct {
	*testing.T
	name string
	link string // the other end of eth0, on the bridge between the nodes
	mac  string // of eth0; a reboot keeps it, because other nodes have neighbour entries with this address
	ips  []string
	dir  string // the node's disk, which a reboot keeps
	shape
	underlay
	first *exec.Cmd
}

// These are the names of environment variables that the test sets for a node's first process. This
// process runs the executable file of the test.
const (
	nodeVar    = "K8S_NODE"
	nodeDirVar = "K8S_NODE_DIR"

	proxyModeVar   = "K8S_PROXY_MODE"
	clusterCIDRVar = "K8S_CLUSTER_CIDR"
	firewalldVar   = "K8S_FIREWALLD"
)

// start starts a node.
func (n *node) start() {
	n.Helper()
	makeCgroup(n, n.name)
	n.first = exec.Command("/proc/self/exe")
	pods, _ := n.cidrs()
	n.first.Env = append(os.Environ(), nodeVar+"="+n.name, nodeDirVar+"="+n.dir,
		proxyModeVar+"="+n.proxy, clusterCIDRVar+"="+pods, firewalldVar+"="+n.firewalld)
	log, err := os.OpenFile(filepath.Join(n.dir, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.Fatal(err)
	}
	defer log.Close()
	n.first.Stdout, n.first.Stderr = log, log
	n.writeIPs()
	n.first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := n.first.Start(); err != nil {
		n.Fatal(err)
	}
	pid := fmt.Sprint(n.first.Process.Pid)
	run(n, "ip", "link", "add", n.link, "master", n.bridge, "up", "type", "veth", "peer", "name", "eth0", "address", n.mac, "netns", pid)
	ns := func(args ...string) {
		n.Helper()
		run(n, "nsenter", append([]string{"-t", pid, "-n", "ip"}, args...)...)
	}
	ns("link", "set", "lo", "up")
	for _, ip := range n.ips {
		bits, router := n.way(ip)
		ns("addr", "add", ip+bits, "dev", "eth0", "nodad")
		ns("link", "set", "eth0", "up")
		ns("route", "add", "default", "via", router)
	}
}

// way returns the prefix length of an address of the node, and the router for its family.
func (n *node) way(ip string) (bits, router string) {
	if strings.Contains(ip, ":") {
		return "/64", n.prefix6 + "1"
	}
	return "/24", n.prefix4 + "1"
}

// writeIPs writes the addresses that the kubelet reports after its next start.
func (n *node) writeIPs() {
	n.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, nodeIPs), []byte(strings.Join(n.ips, ",")), 0o600); err != nil {
		n.Fatal(err)
	}
}

// nodeIPs is a file on the node's disk with the addresses of the node, separated by commas.
const nodeIPs = "ips"

// move replaces the addresses of a running node, and restarts its kubelet, as an administrator
// does.
func (n *node) move(ips ...string) {
	n.Helper()
	old := n.ips
	n.ips = ips
	for i, ip := range ips {
		bits, router := n.way(ip)
		n.run("ip", "addr", "del", old[i]+bits, "dev", "eth0") // first, because the kernel also deletes later addresses of the same subnet
		n.run("ip", "addr", "add", ip+bits, "dev", "eth0", "nodad")
		n.run("ip", "route", "replace", "default", "via", router)
	}
	n.writeIPs()
	n.kill("kubelet")
}

// stop ends a node immediately, as a power cut does. It also removes the cgroups of the node's
// pods, because a kubelet that finds many old cgroups ends with an error.
func (n *node) stop() {
	n.Helper()
	if err := n.first.Process.Kill(); err != nil {
		n.Fatal(err)
	}
	_ = n.first.Wait() // "signal: killed"
	removeCgroups(n, filepath.Join(cgroup, n.name))
	await(n, "the end of "+n.link, func() bool { _, err := net.InterfaceByName(n.link); return err != nil })
}

// kill kills a program of the node, and waits until the program runs again.
func (n *node) kill(program string) {
	n.Helper()
	before := n.run("cat", "/run/"+program+".pid")
	n.run("kill", "-KILL", before)
	await(n, "a new "+program+" on "+n.name, func() bool { return n.run("cat", "/run/"+program+".pid") != before })
}

// try runs a command on the node and returns its output.
func (n *node) try(args ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(n.first.Process.Pid), "-a", "--"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run runs a command on the node and returns its output. It fails the test if the command fails.
func (n *node) run(args ...string) string {
	n.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.Fatalf("on %s: %q: %v\n%s", n.name, args, err, out)
	}
	return out
}

// runNode is the main function of a node's first process.
func runNode() error {
	name, dir := os.Getenv(nodeVar), os.Getenv(nodeDirVar)
	if err := errors.Join(unix.Sethostname([]byte(name)), mountNode(dir)); err != nil {
		return err
	}
	for { // the test may not have made eth0 yet
		if _, err := net.InterfaceByName("eth0"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := writeNodeFiles(name); err != nil {
		return err
	}
	containerd := filepath.Join(containerdRoot, "debian")
	os.Setenv("PATH", containerd+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	programs := map[string][]string{
		"containerd": {filepath.Join(containerd, "containerd"), "--config", "/etc/containerd/config.toml"},
		"kubelet":    {filepath.Join(k8sBin, "kubelet"), "--config", "/etc/kubernetes/kubelet.yaml", "--kubeconfig", kubeconfig(name), "--hostname-override", name},
		"kube-proxy": {filepath.Join(k8sBin, "kube-proxy"), "--config", "/etc/kubernetes/kube-proxy.yaml", "--hostname-override", name},
	}
	running := map[int]string{}
	begin := func(name string) error {
		args := programs[name]
		if name == "kubelet" { // its addresses may have changed since its last start
			ips, err := os.ReadFile(filepath.Join(dir, nodeIPs))
			if err != nil {
				return err
			}
			args = append(slices.Clone(args), "--node-ip", string(ips))
		}
		pid, err := spawn(name, args)
		running[pid] = name
		return err
	}
	if err := begin("containerd"); err != nil {
		return err
	}
	if err := importImages(filepath.Join(containerd, "ctr")); err != nil {
		return err
	}
	if os.Getenv(firewalldVar) != "" {
		programs["dbus-daemon"] = []string{"/usr/bin/dbus-daemon", "--config-file", "/run/dbus/bus.conf", "--nofork", "--nopidfile"}
		programs["firewalld"] = []string{"/usr/sbin/firewalld", "--nofork", "--nopid"}
		if err := errors.Join(os.MkdirAll("/run/dbus", 0o755), os.WriteFile("/run/dbus/bus.conf", []byte(harness.BusConfig), 0o600), begin("dbus-daemon"), begin("firewalld")); err != nil {
			return err
		}
	}
	if err := errors.Join(begin("kubelet"), begin("kube-proxy")); err != nil {
		return err
	}
	for { // the first process is also the parent of processes whose own parent has ended
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if name := running[pid]; name != "" {
			delete(running, pid)
			fmt.Printf("%s has ended: %v\n", name, status)
			time.Sleep(time.Second)
			if err := begin(name); err != nil {
				return err
			}
		}
	}
}

// spawn starts a program, and writes its process ID to the file /run/NAME.pid.
func spawn(name string, args []string) (pid int, err error) {
	log, err := os.OpenFile("/var/log/"+name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	pid, err = syscall.ForkExec(args[0], args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, log.Fd(), log.Fd()}})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", args[0], err)
	}
	return pid, os.WriteFile("/run/"+name+".pid", fmt.Append(nil, pid), 0o600)
}

// importImages imports the images of the test's pods and of the node agent into containerd. It
// tries again until containerd answers.
func importImages(ctr string) (err error) {
	images := map[string]string{podImage: filepath.Join(containerdRoot, "image.tar"), agentImage: agentArchive()}
	if e2eDir != "" {
		images[e2eImage] = filepath.Join(e2eDir, "image.tar")
	}
	for image, archive := range images {
		for range 300 {
			var out []byte
			if out, err = exec.Command(ctr, "-n", "k8s.io", "images", "import", "--base-name", strings.TrimSuffix(image, ":latest"), archive).CombinedOutput(); err == nil {
				break
			}
			err = fmt.Errorf("import %s: %w: %s", image, err, out)
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
	if e2eDir == "" {
		return nil
	}
	names, err := os.ReadFile(filepath.Join(e2eDir, "images"))
	if err != nil {
		return err
	}
	if out, err := exec.Command(ctr, append([]string{"-n", "k8s.io", "images", "tag", e2eImage}, strings.Fields(string(names))...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("tag %s: %w: %s", e2eImage, err, out)
	}
	return nil
}

// mountNode mounts the node's own /etc, /opt, /var/lib and /var/log. Files that the node writes
// there are stored in dir, which stands for the node's disk.
func mountNode(dir string) error {
	type mount struct {
		source, target, kind string
		flags                uintptr
		options              string
	}
	list := []mount{{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}, {"proc", "/proc", "proc", 0, ""}}
	lower := map[string]string{}
	if root := os.Getenv(firewalldVar); root != "" {
		lower["/etc"] = root + "/etc:"
		list = append(list, mount{"overlay", "/usr", "overlay", 0, "lowerdir=" + root + "/usr:/usr"})
	}
	for _, path := range []string{"/etc", "/opt", "/var/lib", "/var/log"} {
		upper, work := dir+"/upper"+path, dir+"/work"+path
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		list = append(list, mount{"overlay", path, "overlay", 0, "lowerdir=" + lower[path] + path + ",upperdir=" + upper + ",workdir=" + work})
	}
	cgroups, containers := dir+"/cgroup", dir+"/containers"
	if err := errors.Join(os.MkdirAll(cgroups, 0o755), os.MkdirAll(containers, 0o755), os.MkdirAll(dir+"/upper/var/lib/containerd", 0o755)); err != nil {
		return err
	}
	list = append(list,
		mount{containers, "/var/lib/containerd", "", unix.MS_BIND, ""}, // an overlay cannot be the upper layer of the overlays of containers
		mount{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		mount{"/sys/fs/cgroup", cgroups, "", unix.MS_BIND | unix.MS_REC, ""},
		mount{"sysfs", "/sys", "sysfs", 0, ""}, // shows the node's network namespace
		mount{cgroups, "/sys/fs/cgroup", "", unix.MS_MOVE, ""},
	)
	for key, value := range map[string]string{ // the kubelet writes these sysctls, which belong to no namespace, so it gets files in their place
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := dir + "/" + strings.ReplaceAll(key, "/", ".")
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		list = append(list, mount{file, "/proc/sys/" + key, "", unix.MS_BIND, ""})
	}
	list = append(list, mount{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""}) // so that mounts of pods spread to the node's other mount namespaces
	for _, m := range list {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, path := range []string{"/run/netns", "/run/lock", "/etc/cni/net.d", "/opt/cni/bin", "/etc/containerd", "/etc/kubernetes/manifests"} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// writeNodeFiles writes the configuration files of a node's containerd, kubelet and kube-proxy.
func writeNodeFiles(name string) error {
	return errors.Join(
		os.WriteFile("/etc/containerd/config.toml", fmt.Appendf(nil, `version = 2
disabled_plugins = ["io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
`, podImage), 0o600),
		os.WriteFile("/etc/kubernetes/kubelet.yaml", fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /%s/%s
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 10000
volumePluginDir: /var/lib/kubelet/plugins
staticPodPath: /etc/kubernetes/manifests
resolvConf: ""
clusterDNS: [%s]
clusterDomain: cluster.local
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%, imagefs.inodesFree: 0%%}
`, cgroup, name, clusterDNS), 0o600),
		os.WriteFile("/etc/kubernetes/kube-proxy.yaml", fmt.Appendf(nil, `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
clusterCIDR: %s
mode: %s
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, kubeconfig("admin"), os.Getenv(clusterCIDRVar), os.Getenv(proxyModeVar)), 0o600),
	)
}
