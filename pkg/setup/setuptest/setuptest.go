// Package setuptest gives each test its own host: a network namespace and a mount namespace, which
// the kernel deletes when the test ends. The package also creates containers in that host, and
// compares the state of the host before and after a test, to find what the test has left behind.
//
// Start with EnterHost. Dump and Same compare the states.
package setuptest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// EnterHost moves the calling goroutine, and every program that it starts, into new network and
// mount namespaces. In them, lo is up, /run and /var/lib are empty, forwarding is off and bridged
// packets traverse iptables. The goroutine stays locked to its thread, so the namespaces and mounts
// end with the test. Call EnterHost in the innermost subtest.
//
// If the process lacks the privileges, EnterHost skips the test. If REQUIRE_NETNS is set, the test
// fails instead.
func EnterHost(t testing.TB) *setup.Host {
	t.Helper()
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	switch {
	case errors.Is(err, unix.EPERM) && os.Getenv("REQUIRE_NETNS") == "":
		t.Skip("needs the right to make namespaces: run make test")
	case err != nil:
		t.Fatalf("unshare(CLONE_NEWNET|CLONE_NEWNS): %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatalf("mount tmpfs on %s: %v", dir, err)
		}
	}
	mountSys(t)
	Run(t, "ip", "link", "set", "lo", "up")
	for key, value := range map[string]string{
		"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0",
		"bridge/bridge-nf-call-iptables": "1", "bridge/bridge-nf-call-ip6tables": "1",
	} {
		SetSysctl(t, key, value)
	}
	host, err := setup.CurrentHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	return host
}

// mountSys mounts a new sysfs over /sys, because a sysfs shows the network namespace in which it
// was mounted. It mounts the machine's /sys/fs/cgroup again, so programs still find the cgroups.
func mountSys(t testing.TB) {
	t.Helper()
	const path = "/sys/fs/cgroup"
	cgroups, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		t.Fatalf("open_tree %s: %v", path, err)
	}
	defer unix.Close(cgroups)
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		t.Fatalf("mount sysfs: %v", err)
	}
	if err := unix.MoveMount(cgroups, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatalf("move_mount %s: %v", path, err)
	}
}

// inHostVar is the environment variable that tells a process that InHost has started it. Its value
// is the name of the test.
const inHostVar = "SETUPTEST_IN_HOST"

// InHost runs test in a new process, in a host that EnterHost makes. All threads of this process
// are in the host, so goroutines of a library act in the host too. Statements before the call of
// InHost run in both processes.
func InHost(t *testing.T, test func()) {
	t.Helper()
	inHost(t, 0, test)
}

// InPIDNamespace runs test as InHost does, but the new process is PID 1 of a new PID namespace.
// Daemons that the test starts become children of this process and end with it. InPIDNamespace
// needs root outside of a user namespace.
func InPIDNamespace(t *testing.T, test func()) {
	t.Helper()
	inHost(t, unix.CLONE_NEWPID|unix.CLONE_NEWNS, func() {
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			t.Fatalf("mount proc: %v", err)
		}
		test()
	})
}

// inHost runs test as InHost does. The parameter namespaces has the flags of clone(2) for additional
// namespaces of the new process, such as CLONE_NEWPID.
func inHost(t *testing.T, namespaces uintptr, test func()) {
	t.Helper()
	if os.Getenv(inHostVar) == t.Name() {
		test()
		return
	}
	EnterHost(t)
	name := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run", name)
	cmd.Env = append(os.Environ(), inHostVar+"="+t.Name())
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: namespaces,
		Pdeathsig:  unix.SIGKILL, // the thread that starts the process runs until the test ends
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Errorf("in its own process (%v):\n%s", err, out)
	}
}

// SetSysctl sets a sysctl. key is its path below /proc/sys/net.
func SetSysctl(t testing.TB, key, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
		t.Fatalf("set sysctl: %v", err)
	}
}

// Sysctl returns the value of a sysctl. key is its path below /proc/sys/net.
func Sysctl(t testing.TB, key string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil {
		t.Fatalf("read sysctl: %v", err)
	}
	return strings.TrimSpace(string(b))
}

// Container creates a named network namespace, as ip-netns(8) does. The namespace is deleted
// when the test ends.
func Container(t testing.TB, name string) *setup.Namespace {
	t.Helper()
	c, err := setup.EnsureNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := setup.DeleteNamed(name); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Inhabit starts a process in a container. The process runs until stop is called or the test
// ends.
func Inhabit(t testing.TB, c *setup.Namespace) (stop func()) {
	t.Helper()
	cmd := exec.Command("cat") // cat ends when its standard input closes, at the latest when the test's process ends
	in, err := cmd.StdinPipe()
	if err == nil {
		err = c.Do(cmd.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// WriteProgram writes a program file that can be executed at once. The kernel does not execute a
// file while a process has the file open for writing (execve(2), ETXTBSY). A child process of
// another test would inherit the open file, so WriteProgram prevents forks until the file is closed.
func WriteProgram(t testing.TB, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// FillDisk creates a file at this path and writes to the file until the file system is full.
func FillDisk(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// Run runs a program in the calling thread's namespaces and returns its output. If the program
// fails, the test fails.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if cmd.Err != nil { // exec.Command searches only the PATH of this process
		for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
			if _, err := os.Stat(dir + name); err == nil {
				cmd.Path, cmd.Err = dir+name, nil
			}
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// In runs a program as Run does, in a container's network namespace.
func In(t testing.TB, c *setup.Namespace, name string, args ...string) (out string) {
	t.Helper()
	if err := c.Do(func() error { out = Run(t, name, args...); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// Ping sends echo requests from a namespace to an address for up to two seconds, and reports
// whether an answer arrives. One second is too short on a busy host, because the kernel repeats an
// unanswered ARP request after one second.
func Ping(t testing.TB, from *setup.Namespace, to string) bool {
	t.Helper()
	var err error
	if doErr := from.Do(func() error {
		err = exec.Command("ping", "-n", "-c", "1", "-i", "0.3", "-w", "2", to).Run()
		return nil
	}); doErr != nil {
		t.Fatal(doErr)
	}
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatalf("ping: %v", err)
	}
	return err == nil
}

// DropForward sets the policy of FORWARD to DROP, as dockerd does, with each of these iptables
// programs.
func DropForward(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		Run(t, p, "-P", "FORWARD", "DROP")
	}
}

// Hide makes programs unusable until the test ends, in every folder in which tests search for
// programs.
func Hide(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin", "/usr/local/sbin") {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if err := hide(path); err != nil {
				t.Fatalf("hide %s: %v", path, err)
			}
		}
	}
}

// hide mounts /dev/null over path, so the program cannot be executed. path may be a symbolic link.
// For example, all iptables commands are links to one program. mount(2) would follow the link and
// hide the program of all commands. move_mount(2) hides only the link.
func hide(path string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// volatile matches the parts of Dump that change without an ADD or DEL: counters, and link states
// that the kernel updates some time after a change of the carrier.
var volatile = regexp.MustCompile(`NO-CARRIER,|,LOWER_UP|state [A-Z]+ | linkdown| tentative|packets \d+ bytes \d+|\[\d+:\d+\]|# (Generated|Completed).*| expires \S+`)

// Dump returns the state of a host as text: links, addresses, routes, rules, and the files in dirs.
// Tests compare the text before an ADD with the text after the DEL (see Same).
func Dump(t testing.TB, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, command := range [][]string{
		{"ip", "-o", "link"},
		{"ip", "-o", "addr"},
		{"ip", "route"}, // without the local table, because the kernel fills it from the addresses
		{"ip", "-6", "route"},
		{"nft", "list", "ruleset"},
	} {
		fmt.Fprintf(&all, "# %s\n%s", strings.Join(command, " "), Run(t, command[0], command[1:]...))
	}
	for _, family := range []string{"ip", "ip6"} {
		// iptables-legacy would create the table that it lists, so Dump runs it only if the kernel
		// already has a table. In a user namespace, Dump cannot find this out and always runs it.
		names, err := os.ReadFile("/proc/thread-self/net/" + family + "_tables_names")
		if len(names) > 0 || errors.Is(err, os.ErrPermission) {
			program := strings.Replace("iptables-legacy", "ip", family, 1)
			fmt.Fprintf(&all, "# %s\n%s", program, Run(t, program, "-S"))
		}
	}
	for _, dir := range dirs {
		out, err := exec.Command("find", dir, "-type", "f").Output()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			out = []byte("none\n")
		}
		fmt.Fprintf(&all, "# files in %s\n%s", dir, out)
	}
	return volatile.ReplaceAllString(all.String(), "")
}

// Same reports whether the state of the host equals an earlier Dump. If not, the test fails. The
// message consists of complaint, formatted with args, and of the differences.
func Same(t testing.TB, before, complaint string, args ...any) bool {
	t.Helper()
	diff := cmp.Diff(before, Dump(t))
	if diff != "" {
		t.Errorf(complaint+" (-before +after):\n%s", append(args, diff)...)
	}
	return diff == ""
}
