package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch starts a goroutine that calls wake after each change of links, addresses and routes in the
// network namespace of the calling thread. The goroutine ends with ctx.
func Watch(ctx context.Context, wake func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("subscribe to changes of links and routes: %w", err)
	}
	context.AfterFunc(ctx, s.Close)
	go func() {
		for {
			changes, _, err := s.Receive()
			if ctx.Err() != nil {
				return
			}
			// ENOBUFS means that the buffer of the socket was full and changes were lost. This does
			// no harm, because wake only says that something has changed.
			if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
				return // the agent also compares regularly without a wake-up
			}
			if err != nil || slices.ContainsFunc(changes, matters) {
				wake()
			}
		}
	}()
	return nil
}

// groups are the multicast groups of changes that Watch follows.
var groups = []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}

// matters reports whether the agent must compare after a change. A new route of protocol 97 needs
// no comparison, because the agent itself has added it. Without this rule, the agent would compare
// twice for each new node.
func matters(change syscall.NetlinkMessage) bool {
	return change.Header.Type != unix.RTM_NEWROUTE || change.Header.Flags&unix.NLM_F_REPLACE != 0 ||
		nl.DeserializeRtMsg(change.Data).Protocol != protocol
}
