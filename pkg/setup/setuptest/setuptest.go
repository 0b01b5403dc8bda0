// Package setuptest gives tests a host of their own: a network and a mount
// namespace that nobody else sees and that go with the test, containers in it,
// and a way to see whether anything was left behind.
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
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// EnterHost puts the calling goroutine, and every program it starts, into new
// network and mount namespaces: lo is up, /run and /var/lib/cni are empty, forwarding is
// off and bridged packets go through iptables. The thread is never given back, so
// namespaces and mounts end with the test. Call it in the innermost subtest.
//
// Without the right to do so it skips the test, or fails it where REQUIRE_NETNS
// is set.
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

// mountSys mounts a new sysfs, which shows the network namespace that it is mounted in. Below
// it the cgroups stay those of the machine.
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

// inHostVar names the test to a process that InHost has started for it.
const inHostVar = "SETUPTEST_IN_HOST"

// InHost runs test in a host as EnterHost makes it, and in a process of its own, every
// thread of which is there: a library that starts goroutines acts in that host too. What
// stands before the call in a test is run in both processes.
func InHost(t *testing.T, test func()) {
	t.Helper()
	inHost(t, 0, test)
}

// InPIDNamespace is InHost, where the process is also the first of a PID namespace: what the
// test starts and loses sight of becomes its child, and ends with it. It needs root outside
// of a user namespace.
func InPIDNamespace(t *testing.T, test func()) {
	t.Helper()
	inHost(t, unix.CLONE_NEWPID|unix.CLONE_NEWNS, func() {
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			t.Fatalf("mount proc: %v", err)
		}
		test()
	})
}

// inHost is InHost, with namespaces of the process's own besides, by flags of clone(2).
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
		Pdeathsig:  unix.SIGKILL, // the thread is this test's, to its end
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Errorf("in its own process (%v):\n%s", err, out)
	}
}

// SetSysctl sets a key below /proc/sys/net.
func SetSysctl(t testing.TB, key, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
		t.Fatalf("set sysctl: %v", err)
	}
}

// Sysctl reads a key below /proc/sys/net.
func Sysctl(t testing.TB, key string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil {
		t.Fatalf("read sysctl: %v", err)
	}
	return strings.TrimSpace(string(b))
}

// Container makes a named network namespace, as ip-netns(8) has them.
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

// Inhabit starts a process in a container, which waits until stop is called or the test ends.
func Inhabit(t testing.TB, c *setup.Namespace) (stop func()) {
	t.Helper()
	cmd := exec.Command("cat") // it ends with its standard input, and so with the test's process
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

// FillDisk makes a file that takes all the space that is left.
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

// Run runs a program in the calling thread's namespaces and returns what it
// printed; its failure is the test's.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if cmd.Err != nil { // not in our PATH, perhaps in the extended one
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

// In is Run inside a container.
func In(t testing.TB, c *setup.Namespace, name string, args ...string) (out string) {
	t.Helper()
	if err := c.Do(func() error { out = Run(t, name, args...); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// Ping says whether one of some echo requests from a container is answered within two
// seconds: on a busy host the kernel may have to ask a neighbour twice, which it does after one.
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

// DropForward sets the policy of FORWARD to DROP as dockerd does, by each of the
// programs given.
func DropForward(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		Run(t, p, "-P", "FORWARD", "DROP")
	}
}

// Hide makes programs as good as missing, for the rest of the test, wherever they
// are looked for.
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

// hide covers a file by one that is not executable. Other than mount(2) it covers a
// symbolic link itself: all of iptables are links to the same program.
func hide(path string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// volatile is what changes by itself in what Dump shows: counters, and what the
// kernel learns of a carrier in its own time.
var volatile = regexp.MustCompile(`NO-CARRIER,|,LOWER_UP|state [A-Z]+ | linkdown| tentative|packets \d+ bytes \d+|\[\d+:\d+\]|# (Generated|Completed).*| expires \S+`)

// Dump is the state of a host that an ADD may change and a DEL must restore, as
// text: links, addresses, routes, rules, and the files below the folders given.
func Dump(t testing.TB, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, command := range [][]string{
		{"ip", "-o", "link"},
		{"ip", "-o", "addr"},
		{"ip", "route"}, // the local table follows from the addresses
		{"ip", "-6", "route"},
		{"nft", "list", "ruleset"},
	} {
		fmt.Fprintf(&all, "# %s\n%s", strings.Join(command, " "), Run(t, command[0], command[1:]...))
	}
	for _, family := range []string{"ip", "ip6"} {
		// Listing a table would make it. The names cannot be read within a user
		// namespace.
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

// Same fails the test unless the host is as Dump has shown it before. complaint says what
// went wrong otherwise, such as "DEL left traces".
func Same(t testing.TB, before, complaint string, args ...any) bool {
	t.Helper()
	diff := cmp.Diff(before, Dump(t))
	if diff != "" {
		t.Errorf(complaint+" (-before +after):\n%s", append(args, diff)...)
	}
	return diff == ""
}
