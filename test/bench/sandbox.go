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

// sandboxMark is set in the environment of the process inside the sandbox.
const sandboxMark = "BRIDGEVETH_BENCH_SANDBOX"

// inSandbox says whether this process is the one that measures.
func inSandbox() bool { return os.Getenv(sandboxMark) != "" }

// enterSandbox starts this program again in a network namespace and a mount
// namespace of its own, waits for it and returns its failure. Whoever is not
// root becomes root in a user namespace besides. The child dies with its parent,
// and its namespaces with it; when ctx ends, it is asked to stop.
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
		os.Exit(exit.ExitCode()) // it has said why
	}
	if err != nil {
		return fmt.Errorf("run in new namespaces: %w", err)
	}
	return nil
}

// closeSandbox keeps this process's mounts from reaching the machine, and makes
// sure that iptables is found: it lies in sbin, which a user's PATH may lack.
func closeSandbox() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
}
