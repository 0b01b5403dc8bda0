package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stateDir is a folder on the node's tmpfs. The network namespaces of containers are bound to files
// in netnsDir, as runtimes do it.
const (
	stateDir = "/run/bench"
	netnsDir = stateDir + "/netns"
)

// bridgeNetfilter is the sysctl that sends bridged packets through iptables. The file does not
// exist if br_netfilter is not loaded.
const bridgeNetfilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// node is a simulated host. It has a network namespace, and a mount namespace with its own /run,
// which contains the lock of iptables. The namespaces exist while the node's two files are open.
type node struct {
	net, mnt *os.File
	filters  bool // bridged packets pass through FORWARD
}

// onThread runs f on a new thread. The thread ends together with f, so f may change the namespaces
// of the thread.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// newNode returns a node that forwards packets and has the policy DROP in FORWARD, like a host with
// Docker.
func newNode() (*node, error) {
	n := &node{}
	return n, onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a node's namespaces: %w", err)
		}
		if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount the node's /run: %w", err)
		}
		if err := os.MkdirAll(netnsDir, 0o755); err != nil {
			return err
		}
		if err := n.configure(); err != nil {
			return err
		}
		return n.open()
	})
}

// configure sets up the network namespace of a new node (a simulated host). The calling thread must
// be in this namespace.
func (n *node) configure() error {
	if err := loopback(true); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("enable forwarding: %w", err)
	}
	switch err := os.WriteFile(bridgeNetfilter, []byte("1"), 0); {
	case err == nil:
		n.filters = true
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("enable bridge netfilter: %w", err)
	}
	return forwardPolicy("DROP")
}

// forwardPolicy sets the policy of the chain FORWARD in the calling thread's network namespace.
func forwardPolicy(policy string) error {
	if out, err := exec.Command("iptables", "-w", "-P", "FORWARD", policy).CombinedOutput(); err != nil {
		return fmt.Errorf("iptables -P FORWARD %s: %w: %s", policy, err, out)
	}
	return nil
}

// open opens the files of the calling thread's namespaces.
func (n *node) open() (err error) {
	if n.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	n.mnt, err = os.Open("/proc/thread-self/ns/mnt")
	return err
}

// enter moves the calling thread into the namespaces of the node (the simulated host). The thread
// must have been started by onThread.
func (n *node) enter() error {
	// setns(2) refuses to change the mount namespace of a thread that shares its root and working
	// directory with other threads.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare working directory: %w", err)
	}
	if err := unix.Setns(int(n.mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the node's mounts: %w", err)
	}
	if err := unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the node's network: %w", err)
	}
	return nil
}

// run runs f on a new thread in the namespaces of the node (the simulated host).
func (n *node) run(f func() error) error {
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// each calls f once for every container, on threads in the namespaces of the node (the simulated
// host). Programs that f starts run in the node, too. The parameter parallel says how many calls
// run at the same time. After a call has failed, its thread makes no further call. each returns the
// time from the start of the first call to the end of the last call.
func (n *node) each(guests []*guest, parallel int, f func(*guest) error) (time.Duration, error) {
	todo := make(chan *guest, len(guests))
	for _, g := range guests {
		todo <- g
	}
	close(todo)

	var ready, done sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, min(parallel, len(guests)))
	for i := range errs {
		ready.Add(1)
		done.Go(func() {
			errs[i] = onThread(func() error {
				err := n.enter()
				ready.Done()
				<-start
				for g := range todo {
					if err == nil {
						err = f(g)
					}
				}
				return err
			})
		})
	}
	ready.Wait()
	began := time.Now()
	close(start)
	done.Wait()
	return time.Since(began), errors.Join(errs...)
}
