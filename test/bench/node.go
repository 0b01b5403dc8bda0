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

// stateDir is the node's tmpfs, and netnsDir where its containers' namespaces
// are bound, as a runtime does it.
const (
	stateDir = "/run/bench"
	netnsDir = stateDir + "/netns"
)

// bridgeNetfilter decides whether iptables sees bridged packets; it is absent
// where br_netfilter is not loaded.
const bridgeNetfilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// node is a network namespace that plays a machine, with a mount namespace in
// which /run is its own (and with it the xtables lock). It lives as long as its
// two files are open.
type node struct {
	net, mnt *os.File
	filters  bool // bridged packets pass through FORWARD
}

// onThread runs f on a thread that ends with it, so that f may change the
// thread's namespaces.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// newNode returns a node that forwards, with FORWARD's policy set to DROP, as
// dockerd leaves a machine.
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

// configure sets up the node that the thread is in.
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

// forwardPolicy sets that of FORWARD, in the network that the thread is in.
func forwardPolicy(policy string) error {
	if out, err := exec.Command("iptables", "-w", "-P", "FORWARD", policy).CombinedOutput(); err != nil {
		return fmt.Errorf("iptables -P FORWARD %s: %w: %s", policy, err, out)
	}
	return nil
}

// open takes hold of the namespaces that the thread is in.
func (n *node) open() (err error) {
	if n.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	n.mnt, err = os.Open("/proc/thread-self/ns/mnt")
	return err
}

// enter moves the calling thread into the node; it must be one of onThread's.
func (n *node) enter() error {
	// setns(2) refuses a mount namespace to a thread that shares its root and
	// working directory with others.
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

// run runs f on a thread inside the node.
func (n *node) run(f func() error) error {
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// each calls f once for every guest, parallel at a time, on threads inside the
// node, and returns the wall time from the first call to the end of the last.
// What f starts runs in the node. After an error no further call begins.
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
