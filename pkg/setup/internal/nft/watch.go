package nft

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// RuleWatch hears of changes of a namespace's rules in nf_tables, whoever makes them:
// iptables-nft, Docker, firewalld, nft(8). iptables-legacy changes nothing there.
type RuleWatch struct{ fd int }

// WatchRules starts to listen. Close ends it.
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

// Wait returns when rules have changed, and then none for the time of quiet: who changes
// them often does so in several steps. Where somebody goes on and on, it returns a time of
// most after the first change, and after idle where nobody changes anything.
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

// poll says whether something comes within a time.
func (w *RuleWatch) poll(within time.Duration) (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(max(0, within).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// drain throws away what has come: that something has is all that counts. ENOBUFS says
// that more has come than there was room for.
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

// Close stops listening.
func (w *RuleWatch) Close() { _ = unix.Close(w.fd) }
