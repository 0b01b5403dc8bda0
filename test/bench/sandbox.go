package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// sandboxMark is an environment variable that is set only for the process inside the sandbox.
const sandboxMark = "BRIDGEVETH_BENCH_SANDBOX"

// inSandbox reports whether this process runs in the sandbox, that is, in namespaces of its own.
func inSandbox() bool { return os.Getenv(sandboxMark) != "" }

// enterSandbox runs this program again as a child process in network and mount namespaces of its
// own, waits for the child, and returns its error. A user who is not root becomes root of a new
// user namespace. The kernel kills the child when this process ends, and the namespaces end with
// the child. When ctx ends, the child gets SIGTERM.
func enterSandbox(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), sandboxMark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		os.Exit(exit.ExitCode()) // the child has printed the reason
	}
	if err != nil {
		return fmt.Errorf("run in new namespaces: %w", err)
	}
	return nil
}

// closeSandbox makes all mounts of the sandbox private, so that the machine does not see new
// mounts. It adds the folders of iptables to PATH, because a user's PATH may not contain them.
func closeSandbox() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
}
