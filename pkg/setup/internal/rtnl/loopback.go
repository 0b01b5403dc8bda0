package rtnl

import (
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

const loopback = "lo"

// RaiseLoopback sets lo up and returns its addresses. The kernel adds 127.0.0.1 and ::1 when lo goes up.
// LowerLoopback is the inverse.
func RaiseLoopback(n *netns.Namespace) ([]netip.Prefix, error) {
	var b netns.Batch
	SetUp(&b, loopback)
	if err := n.Send(b); err != nil {
		return nil, err
	}
	l, err := ByName(n, loopback)
	if err != nil {
		return nil, err
	}
	addresses, err := ListAddresses(n, l)
	return addresses, err
}

// LowerLoopback sets lo down.
func LowerLoopback(n *netns.Namespace) error {
	var b netns.Batch
	SetDown(&b, loopback)
	return n.Send(b)
}

// VerifyLoopback returns an error if lo is down.
func VerifyLoopback(n *netns.Namespace) error {
	l, err := ByName(n, loopback)
	if err != nil {
		return err
	}
	return plan.Differ("interface "+loopback+" up", l.Up, true)
}
