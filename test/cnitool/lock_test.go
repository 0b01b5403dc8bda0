package cnitool

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// hold starts a process that locks a file, and stops the process by SIGSTOP. release ends the
// process.
func hold(t *testing.T, path string) (pid int, release func()) {
	t.Helper()
	cmd := exec.Command("flock", "--no-fork", path, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	release = func() {
		if !ended {
			_ = cmd.Process.Kill() // SIGKILL ends a stopped process too
			_ = cmd.Wait()
		}
		ended = true
	}
	t.Cleanup(release)
	for {
		l, err := flock.Acquire(path, flock.Exclusive, 0)
		if err != nil {
			break
		}
		l.Unlock()
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, release
}

// blocking matches, in strace's output, a call of flock(2) that may wait.
var blocking = regexp.MustCompile(`flock\(\d+, LOCK_(SH|EX)( <unfinished|\))`)

// TestStoppedHolder checks an ADD while a stopped process holds a lock. ADD must wait for the lock
// once, but must not wait again when it undoes its work. The error must name the process, its
// command and the lock. ADD must leave nothing. After the process has ended, ADD must succeed.
func TestStoppedHolder(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{"store": "/run/ipam-simple", "namespace": "/proc/thread-self/ns/net"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newNode(t, dual, "nft").containers(1)
			before := setuptest.Dump(t)
			if err := os.MkdirAll("/run/ipam-simple", 0o700); err != nil {
				t.Fatal(err)
			}
			said, err := filepath.EvalSymlinks(path)
			if err != nil {
				said, err = os.Readlink(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			pid, release := hold(t, path)
			add := on("ADD", 1, dual)
			add.before = []string{"strace", "-f", "-qq", "-o", "/run/trace", "-e", "trace=flock"}
			f := add.run(t).failed(t)
			for _, want := range []string{fmt.Sprintf("process %d (sleep 1000), which is stopped", pid), "lock " + said + ": "} {
				if !strings.Contains(f.Msg, want) {
					t.Errorf("%q is not in %q", want, f.Msg)
				}
			}
			if f.Code != types.ErrTryAgainLater || strings.Contains(f.Msg, "/proc/self") {
				t.Errorf("got %+v", f)
			}
			trace, err := os.ReadFile("/run/trace")
			if err != nil {
				t.Fatal(err)
			}
			if waits := blocking.FindAll(trace, -1); len(waits) != 1 {
				t.Errorf("ADD has waited %d times:\n%s", len(waits), trace)
			}
			release()
			setuptest.Same(t, before, "a failed ADD left traces")
			noLeases(t)
			on("ADD", 1, dual).run(t).ok(t)
			on("DEL", 1, dual).run(t).ok(t)
		})
	}
}

// TestStoppedXtablesHolder checks ADD and DEL on a host with iptables-legacy while a stopped process holds the
// lock of iptables-legacy. The error must name the process, its command and the lock. A failed ADD must leave
// nothing. After the process has ended, ADD and DEL must succeed.
func TestStoppedXtablesHolder(t *testing.T) {
	t.Parallel()
	newNode(t, single, "legacy").containers(1)
	before := setuptest.Dump(t)
	refused := func(c call, pid int) {
		f := c.run(t).failed(t)
		for _, want := range []string{fmt.Sprintf("process %d (sleep 1000), which is stopped", pid), "lock /run/xtables.lock: "} {
			if f.Code != types.ErrTryAgainLater || !strings.Contains(f.Msg, want) {
				t.Errorf("%s: got code %d, %q, want code 11 and %q", c.verb, f.Code, f.Msg, want)
			}
		}
	}
	pid, release := hold(t, "/run/xtables.lock")
	refused(on("ADD", 1, single), pid)
	release()
	setuptest.Same(t, before, "a failed ADD left traces")
	noLeases(t)
	on("ADD", 1, single).run(t).ok(t)
	pid, release = hold(t, "/run/xtables.lock")
	refused(on("DEL", 1, single), pid)
	release()
	on("DEL", 1, single).run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
}

// TestHolderOfSameInode locks the store, and also a folder on another file system that has the same
// inode number. /proc/locks does not distinguish the two files. The test checks that ADD's error
// names only the process that holds the store's lock.
func TestHolderOfSameInode(t *testing.T) {
	t.Parallel()
	newNode(t, dual, "nft").containers(1)
	inode := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	const store, other = "/run/ipam-simple", "/run/other/same"
	for _, dir := range []string{store, "/run/other"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", "/run/other", "tmpfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	for made := uint64(0); made != inode(store); made = inode(other) { // inode numbers of a tmpfs ascend
		if err := os.RemoveAll(other); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(other, 0o700); err != nil {
			t.Fatal(err)
		}
		if inode(other) > inode(store) {
			t.Fatalf("inode %d of another tmpfs comes after %d", inode(other), inode(store))
		}
	}
	innocent, _ := hold(t, other)
	holder, _ := hold(t, store)
	f := on("ADD", 1, dual).run(t).failed(t)
	if !strings.Contains(f.Msg, fmt.Sprintf("process %d ", holder)) || strings.Contains(f.Msg, fmt.Sprintf("process %d ", innocent)) {
		t.Errorf("want process %d named and process %d not: %s", holder, innocent, f.Msg)
	}
}
