package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newGuests makes the given number of containers. Each container is a new network namespace, and a
// path to which this namespace is bound. The namespace has only the interface lo, which is down.
func (n *node) newGuests(count, firstPort int) ([]*guest, error) {
	guests := make([]*guest, count)
	return guests, n.run(func() error {
		for i := range guests {
			port := firstPort + i
			guests[i] = &guest{port: port, netns: filepath.Join(netnsDir, fmt.Sprint(port))}
			if err := n.bindNetns(guests[i].netns); err != nil {
				return err
			}
		}
		return nil
	})
}

// bindNetns makes a network namespace and binds it to a path. The calling thread stays in the
// network namespace of the node.
func (n *node) bindNetns(path string) error {
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a container's namespace: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	return unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET)
}

// inGuest runs f on a thread in the container's network namespace.
func (n *node) inGuest(g *guest, f func() error) error {
	return n.run(func() error {
		ns, err := os.Open(g.netns)
		if err != nil {
			return err
		}
		defer ns.Close() // nothing was written
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", g.netns, err)
		}
		return f()
	})
}

// loopback sets lo of the calling thread's network namespace up or down.
func loopback(up bool) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if up {
		err = netlink.LinkSetUp(lo)
	} else if lo.Attrs().RawFlags&unix.IFF_UP != 0 {
		err = netlink.LinkSetDown(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up or down: %w", err)
	}
	return nil
}
