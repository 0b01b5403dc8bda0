package nft

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// RuleWatch receives an event for each change of nf_tables in a namespace, by any program:
// iptables-nft, Docker, firewalld, nft(8). Changes by iptables-legacy cause no event.
type RuleWatch struct{ fd int }

// WatchRules returns a RuleWatch for the namespace. The caller must close it.
func WatchRules(n *netns.Namespace) (*RuleWatch, error) {
	w := &RuleWatch{}
	err := n.Do(func() (err error) {
		if w.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	})
	if err != nil {
		return nil, fmt.Errorf("listen for changes of nf_tables: %w", err)
	}
	return w, nil
}

// Wait waits for changes of rules. After a change, it waits until no further change occurs for a time
// (the parameter "quiet"), because programs often change rules in several steps. The parameter "most"
// limits the time from the first change to the return. The parameter "idle" limits the time until the
// first change.
func (w *RuleWatch) Wait(quiet, most, idle time.Duration) error {
	changed, err := w.poll(idle)
	end := time.Now().Add(most)
	for changed && err == nil && time.Now().Before(end) {
		if err = w.drain(); err == nil {
			changed, err = w.poll(min(quiet, time.Until(end)))
		}
	}
	if err != nil {
		return fmt.Errorf("listen for changes of nf_tables: %w", err)
	}
	return nil
}

// poll waits for an event and reports whether it has arrived. The parameter within is the longest time
// to wait.
func (w *RuleWatch) poll(within time.Duration) (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(max(0, within).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// drain reads and discards all events, because RuleWatch does not use their contents. ENOBUFS means that
// the socket had no room for all events.
func (w *RuleWatch) drain() error {
	b := make([]byte, 1<<16)
	for {
		switch _, err := unix.Read(w.fd, b); {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// Close closes the socket.
func (w *RuleWatch) Close() { _ = unix.Close(w.fd) }
